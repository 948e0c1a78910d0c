"""The topology is as the design's table says, declared again without harm, never changed in silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest
from pydantic import BaseModel

from shared.broker.base import HOW_TO_GO_ON, Operation
from shared.errors import ConfigurationError
from tests.conformance.harness import TYPE, Harness, eventually, only_on, publish_all
from tests.conformance.servers_seen import (
    kafka_times_ms,
    management,
    publish_kafka,
    queue_seen,
    set_topic_options,
    topic_seen,
)

DAY_MS = 86_400_000


class ThingHappened(BaseModel):
    """Data of an event, for the AsyncAPI document."""

    number: int


class ThingElse(BaseModel):
    """Data of another event."""

    colour: str


@only_on("rabbit")
async def check_rabbit_topology_is_as_designed(harness: Harness) -> None:
    broker, subscription = await harness.broker(), harness.subscription(types=frozenset({TYPE, "thing.else"}))
    await broker.declare([harness.channel], [subscription])
    for name, kind in ((f"{harness.channel}.events", "topic"), (f"{harness.channel}.dlx", "direct")):
        exchange = await management(harness.runtime, f"exchanges/{name}")
        assert (exchange["type"], exchange["durable"], exchange["auto_delete"]) == (kind, True, False)
    queue = await queue_seen(harness.runtime, subscription.queue)
    assert queue.durable
    assert queue.arguments == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": f"{harness.channel}.dlx",
        "x-dead-letter-routing-key": subscription.queue,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-message-ttl": 7 * DAY_MS,
        "x-delivery-limit": 50,
        "x-single-active-consumer": True,
    }
    assert queue.bindings == {(f"{harness.channel}.events", t) for t in (TYPE, "thing.else")}
    dead = await queue_seen(harness.runtime, f"{subscription.queue}.dlq")
    assert dead.durable
    assert dead.arguments == {"x-queue-type": "quorum", "x-message-ttl": 30 * DAY_MS, "x-delivery-limit": -1}
    assert dead.bindings == {(f"{harness.channel}.dlx", subscription.queue)}


@only_on("kafka")
async def check_kafka_topology_is_as_designed(harness: Harness) -> None:
    broker, subscription = await harness.broker(kafka_partitions=12), harness.subscription()
    await broker.declare([harness.channel], [subscription])
    topics = (
        (f"{harness.channel}-events", 7),
        (f"{subscription.queue}.dlt", 30),
        (f"{subscription.queue}.retry", 7),
    )
    for name, days in topics:
        partitions, options = await topic_seen(harness.runtime, name)
        assert partitions == 12
        assert options["retention.ms"] == str(days * DAY_MS)
        assert options["cleanup.policy"] == "delete"
        assert int(options["segment.ms"]) <= DAY_MS / 2
        assert options["min.insync.replicas"] == "1"
        assert int(options["max.message.bytes"]) > 1_048_576
        assert options["message.timestamp.type"] == "LogAppendTime"


@only_on("kafka")
async def check_a_message_is_kept_by_the_brokers_clock_whatever_time_it_says(harness: Harness) -> None:
    """Retention looks at it: what is dated before it would be deleted when it comes, read or not."""
    broker, subscription, recorder = await harness.broker(), harness.subscription(), harness.recorder()
    await broker.declare([harness.channel], [subscription])
    topic, now_ms = f"{harness.channel}-events", int(time.time() * 1_000)
    for days in (-8, 8):
        await publish_kafka(harness.runtime, topic, [(b"k", b"%d" % days, ())], now_ms + days * DAY_MS)
    kept_ms = await kafka_times_ms(harness.runtime, topic, 2)
    assert all(abs(at_ms - now_ms) < DAY_MS for at_ms in kept_ms), kept_ms
    await broker.subscribe(subscription, recorder)
    await recorder.until(lambda: sorted(recorder.bodies) == [b"-8", b"8"], "both are delivered")


@only_on("kafka")
async def check_topics_of_an_earlier_version_are_given_what_it_left_unset(harness: Harness) -> None:
    broker, subscription = await harness.broker(), harness.subscription()
    await broker.declare([harness.channel], [subscription])
    topic = f"{harness.channel}-events"
    _, options = await topic_seen(harness.runtime, topic)
    names = ("retention.ms", "segment.ms", "min.insync.replicas", "max.message.bytes", "cleanup.policy")
    before = {name: options[name] for name in names} | {
        "compression.type": "producer",
        "delete.retention.ms": "777",
    }
    await set_topic_options(harness.runtime, topic, before)
    await _until_options(harness, topic, {**before, "message.timestamp.type": "CreateTime"})
    await (await harness.broker()).declare([harness.channel], [subscription])
    await _until_options(harness, topic, {**before, "message.timestamp.type": "LogAppendTime"})


async def _until_options(harness: Harness, topic: str, expected: Mapping[str, str]) -> None:
    """Wait until the node that is asked has them: it learns of a change a little after the change is answered."""

    async def has_them() -> bool:
        _, options = await topic_seen(harness.runtime, topic)
        return options.items() >= expected.items()

    await eventually(has_them, f"{topic} has {expected}", harness.deadline_s)


async def check_declaring_again_changes_nothing(harness: Harness) -> None:
    subscription, recorder = harness.subscription(), harness.recorder()
    brokers = [await harness.broker() for _ in range(3)]
    await asyncio.gather(*(broker.declare([harness.channel], [subscription]) for broker in brokers))
    messages = harness.messages(10)
    await publish_all(brokers[0], messages)
    for broker in brokers:
        await broker.declare([harness.channel], [subscription])
    await brokers[1].subscribe(subscription, recorder)
    await recorder.until_got(messages)


async def check_declaring_with_other_arguments_is_a_clear_error(harness: Harness) -> None:
    subscription, recorder = harness.subscription(), harness.recorder()
    await (await harness.broker()).declare([harness.channel], [subscription])
    other = await harness.broker(message_ttl_s=3_600.0)
    with pytest.raises(ConfigurationError, match=rf"^[^\n]*{harness.channel}[^\n]*{HOW_TO_GO_ON}$"):
        await other.declare([harness.channel], [subscription])
    good = await harness.broker()
    await good.subscribe(subscription, recorder)
    messages = harness.messages(3)
    await publish_all(good, messages)
    await recorder.until_got(messages)


async def check_the_asyncapi_document_names_every_operation(harness: Harness) -> None:
    operations = [
        Operation(harness.channel, TYPE, ThingHappened),
        Operation(harness.channel, "thing.else", ThingElse),
        Operation("other", "other.happened", ThingElse, subscriber="tester"),
        Operation("other", "other.ended", ThingHappened, subscriber="tester"),
    ]
    document = harness.make().asyncapi("Things", "1.2.3", operations)
    assert document["asyncapi"].startswith("3.")
    assert (document["info"]["title"], document["info"]["version"]) == ("Things", "1.2.3")
    actions = [operation["action"] for operation in document["operations"].values()]
    assert sorted(set(actions)) == ["receive", "send"]
    text = str(document)
    for operation in operations:
        assert operation.event_type in text
        assert operation.model.__name__ in document["components"]["schemas"]
