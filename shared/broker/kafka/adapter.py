"""The Kafka adapter: partitioned topics, an idempotent producer with `acks=all`, manual commits.

FastStream owns the consumers and writes the AsyncAPI document; a poll is a batch, so nothing of it runs per
message.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from shared.broker.asyncapi import add_handler, asyncapi_document
from shared.broker.base import (
    BatchHandler,
    Capabilities,
    DeadLetter,
    Delivery,
    Message,
    Operation,
    PublishFailure,
    QueueState,
    Subscription,
    destination_name,
)
from shared.broker.kafka.consumer import LOST, Handover, KafkaConsumer, ended, text_headers
from shared.broker.kafka.lag import Place, queue_states
from shared.broker.kafka.producer import REQUEST_TIMEOUT_MS, RETRY_BACKOFF_MS, KafkaProducer, unavailable
from shared.broker.kafka.topics import (
    create_missing,
    dead_letter_topic,
    own_topics,
    retry_topic,
    subscribed_topics,
    topics_for,
)
from shared.errors import UnavailableError
from shared.settings import Settings

_LOOK_MS = 500
_PING_TIMEOUT_S = 1.5
_GOODBYE_S = 3.0


def handover_wait_s(settings: Settings) -> float:
    """How long a rebalance waits for the batch that runs: as long as its handlers and their retries may take.

    The whole group stands still meanwhile, also when a member hangs. A batch that takes longer, since a server is
    away, is not waited for: it comes again elsewhere, where claims and inbox keep its effects single.
    """
    return settings.handler_timeout_s + settings.handler_retry_max_s


def consumer_options(settings: Settings) -> dict[str, Any]:
    """What every consumer gets. Offsets are committed by hand."""
    session_ms = int(settings.kafka_session_timeout_s * 1_000)
    return {
        "auto_offset_reset": "earliest",
        "max_poll_interval_ms": int(settings.kafka_max_poll_interval_s * 1_000),
        "session_timeout_ms": session_ms,
        "heartbeat_interval_ms": session_ms // 3,
        # A member hears of a rebalance by a heartbeat, hands over, and joins: unset, it had the session's time for
        # all of it, and whoever took longer was put out with its batch still running.
        "rebalance_timeout_ms": int(handover_wait_s(settings) * 1_000) + session_ms,
        "fetch_max_wait_ms": 500,
        "fetch_max_bytes": 16 * 1024 * 1024,
        "max_partition_fetch_bytes": 1024 * 1024,
    }


def _dead_letter_group(group: str, subscription: Subscription) -> str:
    """One for each place: members that read different topics would rebalance for each other's sake."""
    return f"{group}.{subscription.queue}"


class KafkaAdapter:
    """`Broker` on Apache Kafka 4.x."""

    capabilities = Capabilities(
        name="kafka",
        order_scope="partition",
        scale_out_keeps_order=True,
        replay=True,
        routes_by_type=False,
        unroutable_detected=False,
        delivery_limit=False,
        delayed_retry=False,
        request_reply=False,
    )

    def __init__(self, settings: Settings, client_name: str) -> None:
        self._settings = settings
        self._client_name = client_name
        self._servers = [server.strip() for server in (settings.kafka_bootstrap or "").split(",")]
        self._producer = KafkaProducer(self._servers, client_name, settings.publish_timeout_s)
        self._broker = KafkaBroker(
            self._servers,
            client_id=client_name,
            consumer_only=True,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            retry_backoff_ms=RETRY_BACKOFF_MS,
            allow_auto_create_topics=False,
            graceful_timeout=settings.shutdown_grace_s,
            logger=None,
            apply_types=False,
        )
        self._consumers: list[KafkaConsumer] = []
        self._retry_topics: set[str] = set()

    @property
    def settlement_failures(self) -> Mapping[str, int]:
        failures: Counter[str] = Counter()
        for consumer in self._consumers:
            failures[consumer.queue] += consumer.settlement_failures
        return failures

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self._producer.start()
                await self._broker.start()
        except LOST as error:
            await self._disconnect()
            raise unavailable(error) from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        grace_s = self._settings.shutdown_grace_s
        await asyncio.gather(*(consumer.stop(grace_s) for consumer in self._consumers))
        await self._disconnect()

    async def _disconnect(self) -> None:
        grace_s = self._settings.shutdown_grace_s
        await ended(self._broker.stop(), grace_s)
        await self._producer.stop(grace_s)

    # -- topology

    async def declare(self, channels: Sequence[str], subscriptions: Sequence[Subscription] = ()) -> None:
        await self._create(topics_for(channels, subscriptions, self._settings))
        self._producer.channels.update(channels, (s.channel for s in subscriptions))
        self._retry_topics.update(retry_topic(s) for s in subscriptions)

    async def _create(self, topics: Sequence[NewTopic]) -> None:
        admin = self._admin()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await admin.start()
                await create_missing(admin, topics)
        except LOST as error:
            raise unavailable(error) from error
        finally:
            await ended(admin.close(), _GOODBYE_S)

    def _admin(self) -> AIOKafkaAdminClient:
        return AIOKafkaAdminClient(
            bootstrap_servers=self._servers, client_id=self._client_name, request_timeout_ms=REQUEST_TIMEOUT_MS
        )

    def _onlooker(self, *topics: str) -> AIOKafkaConsumer:
        """A consumer outside every group: looking changes nothing."""
        return AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self._servers,
            client_id=self._client_name,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )

    # -- publishing

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        return await self._producer.publish(messages)

    async def publish_dead_letter(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        await self._publish_again(dead_letter_topic(subscription), delivery, headers)

    async def publish_retry(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        topic = retry_topic(subscription)
        if topic not in self._retry_topics:  # aiokafka would make all other messages wait for it
            raise UnavailableError(f"subscription {subscription.queue} was not declared")
        await self._publish_again(topic, delivery, headers)

    async def _publish_again(self, topic: str, delivery: Delivery, headers: Mapping[str, str]) -> None:
        """A delivery once more, under its own key, with `headers` added to its own."""
        key = None if delivery.key is None else delivery.key.encode()
        await self._producer.publish_one(topic, key, delivery.body, {**delivery.headers, **headers})

    # -- subscribing

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        await self.declare((), (subscription,))
        await self._consume(subscription, subscribed_topics(subscription), subscription.subscriber, handler)

    async def subscribe_dead_letters(self, subscription: Subscription, group: str, handler: BatchHandler) -> None:
        await self._create(own_topics(subscription, self._settings))
        self._retry_topics.add(retry_topic(subscription))
        topic = dead_letter_topic(subscription)
        await self._consume(subscription, (topic,), _dead_letter_group(group, subscription), handler)

    async def _consume(
        self, subscription: Subscription, topics: Sequence[str], group: str, handler: BatchHandler
    ) -> None:
        handover = Handover(handover_wait_s(self._settings))
        subscriber = self._broker.subscriber(
            *topics,
            group_id=group,
            ack_policy=AckPolicy.MANUAL,
            listener=handover,
            persistent=False,
            **consumer_options(self._settings),
        )
        consumer = KafkaConsumer(subscription, subscriber, handover, handler)
        self._consumers.append(consumer)
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await consumer.start()
        except LOST as error:
            # Half started it may yet join, and hold its partitions without ever polling.
            self._consumers.remove(consumer)
            await consumer.stop(_GOODBYE_S)
            raise unavailable(error) from error

    # -- looking

    async def dead_letters(self, subscription: Subscription, limit: int = 100) -> list[DeadLetter]:
        topic = dead_letter_topic(subscription)
        consumer = self._onlooker(topic)
        letters: list[DeadLetter] = []
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await consumer.start()
                partitions = list(consumer.assignment())
                ends = await consumer.end_offsets(partitions)
                beginnings = await consumer.beginning_offsets(partitions)
                remaining = sum(ends[p] - beginnings[p] for p in partitions)
                while remaining > 0 and len(letters) < limit:
                    polled = await consumer.getmany(timeout_ms=_LOOK_MS, max_records=limit - len(letters))
                    for records in polled.values():
                        remaining -= len(records)
                        letters += [DeadLetter(topic, r.value or b"", text_headers(r)) for r in records]
        except LOST as error:
            raise unavailable(error) from error
        finally:
            await ended(consumer.stop(), _GOODBYE_S)
        return letters

    async def queue_states(self, subscriptions: Sequence[Subscription]) -> list[QueueState]:
        return await self._states([Place(s.queue, s.subscriber, subscribed_topics(s)) for s in subscriptions])

    async def dead_letter_states(self, subscriptions: Sequence[Subscription], group: str) -> list[QueueState]:
        topics = [(dead_letter_topic(s), _dead_letter_group(group, s)) for s in subscriptions]
        return await self._states([Place(topic, its_group, (topic,)) for topic, its_group in topics])

    async def _states(self, places: Sequence[Place]) -> list[QueueState]:
        admin, onlooker = self._admin(), self._onlooker()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await admin.start()
                await onlooker.start()
                return await queue_states(admin, onlooker, places)
        except LOST as error:
            raise unavailable(error) from error
        finally:
            await ended(admin.close(), _GOODBYE_S)
            await ended(onlooker.stop(), _GOODBYE_S)

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(_PING_TIMEOUT_S):
                await self._producer.ping()
        except LOST as error:
            raise unavailable(error) from error

    def asyncapi(self, title: str, version: str, operations: Sequence[Operation]) -> dict[str, Any]:
        broker = KafkaBroker("kafka", specification_url="kafka://kafka", logger=None)
        for operation in operations:
            topic = destination_name("kafka", operation.channel)
            if operation.subscriber is None:
                broker.publisher(topic, title=operation.event_type, schema=operation.model)
            else:
                subscriber = broker.subscriber(topic, group_id=operation.subscriber, title=operation.event_type)
                add_handler(subscriber, operation)
        return asyncapi_document(broker, title, version)
