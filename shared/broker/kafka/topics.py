"""What a channel, a dead-letter place and the way back from it are on Kafka: topics and all their options.

`prefix` is the settings' `broker_prefix`, with which every name begins, that of a group, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from shared.broker.base import BODY_BYTES_MAX, HOW_TO_GO_ON, Subscription, destination_name
from shared.errors import ConfigurationError
from shared.settings import Settings

_log = structlog.get_logger(__name__)

RECORD_BYTES_MAX = 1_048_576
"""Largest event, in bytes before compression, that is published: with generous headers."""

_BATCH_BYTES_MAX = RECORD_BYTES_MAX + 64 * 1_024
"""What the topic takes. More than the producer sends, however badly it compresses: a batch that the broker
refuses would break the sequence of the idempotent producer."""

DEAD_LETTER_BYTES_MAX = BODY_BYTES_MAX + 256 * 1_024
"""The same for a dead letter: the topic's limit is on what is compressed, so that a foreign client's record may
be far larger when it is unpacked, and it has our headers on top."""

_TIMESTAMPS = "message.timestamp.type"
_UNSET_BEFORE = frozenset({_TIMESTAMPS})
"""Options that earlier versions left at the cluster's defaults: a topic of theirs is given them."""

_SET_FOR_THE_TOPIC = 1
"""The source of an option, as Kafka's protocol numbers them."""

_LEADER_POLL_S = 0.05

_REPLIES_KEPT_S = 3_600.0
"""Well over the longest that anybody waits for an answer."""


def dead_letter_topic(subscription: Subscription, prefix: str) -> str:
    """`notification.order.dlt`."""
    return f"{prefix}{subscription.queue}.dlt"


def retry_topic(subscription: Subscription, prefix: str) -> str:
    """`notification.order.retry`: what comes back to this subscriber alone; its group reads it beside the
    channel's topic."""
    return f"{prefix}{subscription.queue}.retry"


def clock_topic(subscription: Subscription, prefix: str) -> str:
    """`wallet.share.clock`: where a subscriber that answers requests asks for the time (`clock`)."""
    return f"{prefix}{subscription.queue}.clock"


def reply_topic(service: str, prefix: str) -> str:
    """`wallet-replies`: where the processes of a service get their answers, each in a partition."""
    return f"{prefix}{service}-replies"


def subscribed_topics(subscription: Subscription, prefix: str) -> tuple[str, str]:
    """All that the subscriber's group reads."""
    return destination_name("kafka", subscription.channel, prefix), retry_topic(subscription, prefix)


def group_name(subscription: Subscription, prefix: str) -> str:
    """`notification`."""
    return f"{prefix}{subscription.subscriber}"


def topics_for(
    channels: Sequence[str], subscriptions: Sequence[Subscription], settings: Settings
) -> list[NewTopic]:
    """The topics of these channels, and those of the subscriptions' dead letters and retries."""
    names = sorted({*channels, *(subscription.channel for subscription in subscriptions)})
    events = [
        _topic(
            destination_name("kafka", name, settings.broker_prefix),
            settings.message_ttl_s,
            _BATCH_BYTES_MAX,
            settings,
        )
        for name in names
    ]
    return events + [topic for subscription in subscriptions for topic in own_topics(subscription, settings)]


def topic_of_replies(service: str, settings: Settings) -> NewTopic:
    """Of replies none is read that is older than who waits for it."""
    return _topic(reply_topic(service, settings.broker_prefix), _REPLIES_KEPT_S, _BATCH_BYTES_MAX, settings)


def own_topics(subscription: Subscription, settings: Settings) -> list[NewTopic]:
    """The topics that belong to one subscriber. What fits the one for dead letters fits the way back, too."""
    prefix = settings.broker_prefix
    clock = _topic(clock_topic(subscription, prefix), _REPLIES_KEPT_S, _BATCH_BYTES_MAX, settings, partitions=1)
    letters = dead_letter_topic(subscription, prefix)
    return ([clock] if subscription.answers else []) + [
        _topic(letters, settings.dead_letter_ttl_s, DEAD_LETTER_BYTES_MAX, settings),
        _topic(retry_topic(subscription, prefix), settings.message_ttl_s, DEAD_LETTER_BYTES_MAX, settings),
    ]


def _topic(
    name: str, retention_s: float, bytes_max: int, settings: Settings, partitions: int | None = None
) -> NewTopic:
    return NewTopic(
        name,
        num_partitions=partitions or settings.kafka_partitions,
        replication_factor=settings.kafka_replication_factor,
        topic_configs={
            "cleanup.policy": "delete",
            "retention.ms": str(int(retention_s * 1_000)),
            "segment.ms": str(int(settings.kafka_segment_s * 1_000)),
            "min.insync.replicas": str(settings.kafka_min_insync_replicas),
            "max.message.bytes": str(bytes_max),
            "compression.type": "producer",
            _TIMESTAMPS: "LogAppendTime",  # retention by the brokers' clock, whatever that of who publishes says
            **sync_options(settings),
        },
    )


def sync_options(settings: Settings) -> dict[str, str]:
    """Of a topic: whether each record is synced before it is confirmed."""
    return {"flush.messages": "1"} if settings.kafka_synced else {}


async def create_missing(admin: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> None:
    """Create what is not there and wait until every partition has a leader; the caller bounds the time.

    Raises `ConfigurationError` when a topic is there with other options, `KafkaError` when it cannot be made.
    """
    response = await admin.create_topics(list(topics))
    existing: list[NewTopic] = []
    for topic, topic_error in zip(topics, response.topic_errors, strict=True):
        name, code, *message = topic_error
        if for_code(code) is TopicAlreadyExistsError:
            existing.append(topic)
        elif code:
            raise for_code(code)(f"topic {name}: {' '.join(str(part) for part in message if part)}")
    described = await _with_leaders(admin, [topic.name for topic in topics])
    for topic in existing:
        await _require_same(admin, topic, described[topic.name])


async def _with_leaders(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    """Partition counts, once all have leaders: a creation is answered a little before that."""
    while True:
        described = await admin.describe_topics(names)
        if all(
            not topic["error_code"] and all(p["leader"] >= 0 for p in topic["partitions"]) for topic in described
        ):
            return {topic["topic"]: len(topic["partitions"]) for topic in described}
        await asyncio.sleep(_LEADER_POLL_S)


async def _require_same(admin: AIOKafkaAdminClient, topic: NewTopic, partitions: int) -> None:
    if partitions != topic.num_partitions:
        raise ConfigurationError(
            f"Kafka's topic {topic.name} has {partitions} partitions, the settings say {topic.num_partitions}: "
            f"{HOW_TO_GO_ON}"
        )
    there = await _options(admin, topic.name)
    wanted = topic.topic_configs
    others = {option: there.get(option) for option in wanted if there.get(option) != wanted[option]}
    for option in sorted(others.keys() - _UNSET_BEFORE):
        raise ConfigurationError(
            f"Kafka's topic {topic.name} has {option}={others[option]}, the settings say {wanted[option]}: "
            f"{HOW_TO_GO_ON}"
        )
    if others:
        await _give(admin, topic)
        _log.info("kafka.topic_options_set", topic=topic.name, before=others)


async def _options(admin: AIOKafkaAdminClient, name: str, *, own_only: bool = False) -> dict[str, str]:
    """A topic's options; `own_only`: those that were set for it, and are not the cluster's."""
    (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    entries = [entry for _, _, _, _, entries in response.resources for entry in entries]
    return {
        option: value
        for option, value, _read_only, source, *_ in entries
        if source == _SET_FOR_THE_TOPIC or not own_only
    }


async def _give(admin: AIOKafkaAdminClient, topic: NewTopic) -> None:
    """Give it the options that it has not, with all others: one that is not named Kafka would take back."""
    options = {**await _options(admin, topic.name, own_only=True), **topic.topic_configs}
    (response,) = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name, options)])
    for code, message, *_ in response.resources:
        if code:
            raise for_code(code)(f"topic {topic.name}: {message}")
