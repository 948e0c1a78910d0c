"""What others take away comes back by itself; while it is away the adapter says what is in trouble, not longer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from shared.broker.base import Broker, Subscription, Trouble
from shared.errors import UnavailableError
from tests.conformance.harness import (
    Harness,
    Recorder,
    eventually,
    only_on,
    publish_all,
    until_no_trouble,
    until_parked,
)
from tests.conformance.servers_seen import (
    add_partition,
    delete_account,
    delete_exchange,
    delete_queue,
    delete_topic,
    make_account,
    publish_kafka_partition,
    set_password,
    unbind,
)


async def check_what_somebody_deleted_comes_back(harness: Harness) -> None:
    """Until then publishing fails in a way that says "again", so that the outbox keeps the message."""
    broker, subscription = await harness.broker(publish_timeout_s=8.0), harness.subscription()
    recorder, letters = harness.recorder(), harness.recorder()
    await broker.subscribe(subscription, recorder)
    await broker.subscribe_dead_letters(subscription, "reader", letters)
    first = harness.messages(10, keys=5)
    await publish_all(broker, first)
    await recorder.until_settled(first)
    for what, removals in _removals(harness, subscription).items():
        for remove in removals:
            await remove()
        await asyncio.gather(
            _goes_on(harness, broker, recorder, what),
            _letter_arrives(harness, broker, subscription, letters, what),
        )
    await until_no_trouble(broker, harness.deadline_s)


def _removals(harness: Harness, subscription: Subscription) -> Mapping[str, list[Callable[[], Awaitable[None]]]]:
    runtime, channel, queue = harness.runtime, harness.channel, subscription.queue
    if harness.system == "kafka":
        return {
            "letters": [partial(delete_topic, runtime, f"{queue}.{own}") for own in ("dlt", "retry")],
            "events": [partial(delete_topic, runtime, f"{channel}-events")],
        }
    return {
        "binding": [partial(unbind, runtime, subscription), partial(delete_queue, runtime, f"{queue}.dlq")],
        "queue": [partial(delete_queue, runtime, queue), partial(delete_exchange, runtime, f"{channel}.dlx")],
        "exchange": [partial(delete_exchange, runtime, f"{channel}.events")],
    }


@only_on("kafka")
async def check_a_partition_that_somebody_added_is_read(harness: Harness) -> None:
    """Within seconds; that there are more than the settings say is told as long as it lasts, and stops nothing."""
    broker, recorder, subscription = await harness.broker(), harness.recorder(), harness.subscription()
    await broker.subscribe(subscription, recorder)
    topic = f"{harness.channel}-events"
    await add_partition(harness.runtime, topic, 3)
    await publish_kafka_partition(harness.runtime, topic, 3, b"added")
    await recorder.until(lambda: b"added" in recorder.bodies, "the new partition is read")
    trouble = await eventually(lambda: _trouble_of(broker, topic), "it is told", harness.deadline_s)
    assert "4 partitions" in trouble.reason
    assert not trouble.stops


@only_on("rabbit")
async def check_a_password_that_was_changed_is_waited_for(harness: Harness) -> None:
    name = harness.channel
    url = await make_account(harness.runtime, name)
    try:
        broker, recorder = await harness.broker(rabbit_url=url, publish_timeout_s=2.0), harness.recorder()
        await broker.subscribe(harness.subscription(), recorder)
        await set_password(harness.runtime, name, "another")
        trouble = await eventually(lambda: _trouble_of(broker, "broker"), "it is told", harness.deadline_s)
        assert trouble.stops
        await set_password(harness.runtime, name, name)
        await until_no_trouble(broker, harness.deadline_s)
        await _goes_on(harness, broker, recorder, "again")
    finally:
        await delete_account(harness.runtime, name)


async def _trouble_of(broker: Broker, place: str) -> Trouble | None:
    return broker.troubles.get(place)


async def _goes_on(harness: Harness, broker: Broker, recorder: Recorder, what: str) -> None:
    """What is published now is delivered, as soon as the broker takes it."""
    messages = harness.messages(10, keys=5, prefix=f"{what}-")
    left = list(messages)

    async def taken() -> bool:
        failures = await broker.publish(left)
        assert all(isinstance(failure.error, UnavailableError) for failure in failures), "none is given up"
        left[:] = [failure.message for failure in failures]
        return not left

    await eventually(taken, f"published again after {what}", harness.deadline_s)
    await recorder.until_got(messages)


async def _letter_arrives(
    harness: Harness, broker: Broker, subscription: Subscription, letters: Recorder, what: str
) -> None:
    body = f"letter-{what}".encode()
    await until_parked(broker, subscription, body, harness.deadline_s)
    await letters.until(lambda: body in letters.bodies, "the letter is read, not lost")
