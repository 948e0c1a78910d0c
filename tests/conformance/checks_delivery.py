"""Delivering: in bounded batches, one at a time, to who asked for it, from the oldest unsettled message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from shared.broker.base import Delivery, Message, Settlement, Subscription, destination_name
from tests.conformance.harness import (
    TYPE,
    Harness,
    assert_in_order,
    eventually,
    only_on,
    publish_all,
    until_one_got,
)
from tests.conformance.servers_seen import group_members, publish_amqp, publish_kafka, queue_counts


async def check_messages_wait_for_a_declared_subscriber(harness: Harness) -> None:
    broker, recorder, subscription = await harness.broker(), harness.recorder(), harness.subscription()
    await broker.declare([harness.channel], [subscription])
    messages = harness.messages(50, keys=5)
    await publish_all(broker, messages)
    await broker.subscribe(subscription, recorder)
    await recorder.until_got(messages)


async def check_batches_are_bounded_and_run_one_at_a_time(harness: Harness) -> None:
    broker, recorder = await harness.broker(), harness.recorder()
    subscription = harness.subscription(batch_max=7, in_flight_max=50)
    await broker.declare([], [subscription])
    messages = harness.messages(200, keys=20)
    await publish_all(broker, messages)
    recorder.released.clear()  # while the first batch is held up, enough for a larger one gathers behind it
    await broker.subscribe(subscription, recorder)
    await recorder.until(lambda: len(recorder.deliveries) > 0, "a first batch")
    if harness.system == "rabbit":
        await eventually(lambda: _waiting(harness, subscription.queue, 150), "a full window", harness.deadline_s)
    recorder.released.set()
    await recorder.until_got(messages)
    assert max(recorder.batches) <= 7, f"more than batch_max at once: {max(recorder.batches)}"
    assert not recorder.overlapped, "more than one call of the handler at a time"


async def check_no_more_than_in_flight_max_is_handed_over(harness: Harness) -> None:
    broker, recorder = await harness.broker(), harness.recorder()
    recorder.released.clear()
    subscription = harness.subscription(batch_max=500, in_flight_max=20)
    await broker.declare([], [subscription])
    messages = harness.messages(100, keys=10)
    await publish_all(broker, messages)
    await broker.subscribe(subscription, recorder)
    await recorder.until(lambda: len(recorder.deliveries) > 0, "a first batch")
    assert len(recorder.deliveries) <= 20, f"more than in_flight_max: {len(recorder.deliveries)}"
    if harness.system == "rabbit":  # and what the adapter holds without having handed it over counts too
        ready, _ = await queue_counts(harness.runtime, subscription.queue)
        assert ready >= 80, f"more than in_flight_max are unsettled: only {ready} of 100 wait in the queue"
    recorder.released.set()
    await recorder.until_got(messages)
    assert max(recorder.batches) <= 20, f"more than in_flight_max: {max(recorder.batches)}"


async def check_every_subscriber_gets_everything(harness: Harness) -> None:
    broker = await harness.broker()
    recorders = [harness.recorder(), harness.recorder()]
    for name, recorder in zip(("first", "second"), recorders, strict=True):
        await broker.subscribe(harness.subscription(name), recorder)
    messages = harness.messages(60, keys=6)
    await publish_all(broker, messages)
    for recorder in recorders:
        await recorder.until_got(messages)
        assert recorder.duplicates() == 0, "delivered twice"


async def check_types_are_routed_where_the_capability_says_so(harness: Harness) -> None:
    broker, wanted, everything = await harness.broker(), harness.recorder(), harness.recorder()
    both = frozenset({TYPE, "thing.else"})
    await broker.subscribe(harness.subscription("all", types=both), everything)
    await broker.subscribe(harness.subscription("one"), wanted)
    other = Message(harness.channel, "thing.else", "key", b"other")
    mine = Message(harness.channel, TYPE, "key", b"mine")
    await publish_all(broker, [other, mine])
    await everything.until_got([other, mine])
    await wanted.until_got([mine])  # the later one of its key: the other would have come before it
    assert (other.body not in wanted.bodies) == broker.capabilities.routes_by_type


async def check_replicas_share_the_work_and_keep_the_order_per_key(harness: Harness) -> None:
    subscription, together = harness.subscription(batch_max=20), harness.recorder()
    replicas = [await harness.broker(), await harness.broker()]
    counts = [0, 0]
    for number, replica in enumerate(replicas):

        async def handle(batch: Sequence[Delivery], number: int = number) -> Sequence[Settlement]:
            counts[number] += len(batch)
            return await together(batch)

        await replica.subscribe(subscription, handle)
    if harness.system == "kafka":
        await _until_two_members(harness, subscription)
    messages = harness.messages(600, keys=60)
    for start in range(0, 600, 100):
        await publish_all(replicas[0], messages[start : start + 100])
    await together.until_got(messages)
    assert_in_order(together.bodies)
    assert (min(counts) > 0) == replicas[0].capabilities.scale_out_keeps_order, f"shares of the work: {counts}"
    harness.duplicates += together.duplicates()


async def check_unordered_replicas_work_at_the_same_time(harness: Harness) -> None:
    subscription = replace(harness.subscription(batch_max=5, in_flight_max=10), ordered=False)
    recorders = [harness.recorder(), harness.recorder()]
    for recorder in recorders:
        recorder.released.clear()
        await (await harness.broker()).subscribe(subscription, recorder)
    if harness.system == "kafka":
        await _until_two_members(harness, subscription)
    messages = harness.messages(100, keys=50)
    publisher = await harness.broker()
    await publisher.declare([harness.channel])
    await publish_all(publisher, messages)
    for recorder in recorders:
        await recorder.until(lambda r=recorder: len(r.deliveries) > 0, "each replica has work")  # type: ignore[misc]
        recorder.released.set()
    await until_one_got(recorders, messages)


async def check_a_closed_replica_hands_over_to_the_other(harness: Harness) -> None:
    subscription, first, second = harness.subscription(), harness.recorder(), harness.recorder()
    leaving, staying = harness.make(), await harness.broker()
    async with leaving:
        await leaving.subscribe(subscription, first)
        await staying.subscribe(subscription, second)
        before = harness.messages(30, keys=10, prefix="before-")
        await publish_all(staying, before)
        await until_one_got([first, second], before)
    consumers = await _consumers(harness, subscription.subscriber, subscription.queue)
    assert consumers == 1, f"the closed replica still counts: {consumers} consumers"
    after = harness.messages(30, keys=10, prefix="after-")
    await publish_all(staying, after)
    await second.until_got(after)


async def check_a_replica_that_leaves_hands_over_in_order(harness: Harness) -> None:
    """What it holds, its running batch among it, comes before anything that the next one is sent."""
    subscription, together = harness.subscription(batch_max=10, in_flight_max=50), harness.recorder()
    together.released.clear()
    leaving, staying = harness.make(shutdown_grace_s=30.0), await harness.broker()
    messages = harness.messages(200, keys=5)
    async with leaving:
        await leaving.subscribe(subscription, together)
        await publish_all(leaving, messages)
        await together.until(lambda: len(together.deliveries) > 0, "a first batch")
        joining = asyncio.create_task(staying.subscribe(subscription, together))
        if harness.system == "kafka":  # where it has joined when its running batch has ended
            await _until_two_members(harness, subscription)
        else:
            await joining
        harness.soon(together.released.set)
    await joining
    await together.until_got(messages)
    assert_in_order(together.bodies)
    harness.duplicates += together.duplicates()


async def check_odd_messages_are_delivered_not_lost(harness: Harness) -> None:
    """Headers of any type and encoding, empty and null bodies: all of it reaches the pipeline, which judges."""
    broker, recorder = await harness.broker(), harness.recorder()
    await broker.subscribe(harness.subscription(), recorder)
    name = destination_name(harness.system, harness.channel)
    if harness.system == "rabbit":
        headers = {"bad": bytearray(b"\xff\xfe"), "table": {"deep": [1, {"er": True}]}, "number": 7, "null": None}
        await publish_amqp(harness.runtime, name, TYPE, b"odd", headers)
        await publish_amqp(harness.runtime, name, TYPE, b"", {})
    else:
        odd = [("bad", b"\xff\xfe"), ("twice", b"1"), ("twice", b"2"), ("", b"")]
        records = [(b"\xff", b"odd", odd), (b"key", None, []), (b"key", b"", [])]
        await publish_kafka(harness.runtime, name, records)
    last = Message(harness.channel, TYPE, "key", b"last")
    await publish_all(broker, [last])
    await recorder.until(lambda: {b"odd", b"", b"last"} <= set(recorder.bodies), "odd messages arrive, none lost")
    odd_one = next(delivery for delivery in recorder.deliveries if delivery.body == b"odd")
    assert odd_one.headers["bad"] == "\\xff\\xfe"
    assert all(isinstance(value, str) for value in odd_one.headers.values())


@only_on("kafka")
async def check_a_rebalance_waits_for_the_running_batch(harness: Harness) -> None:
    subscription, first, second = harness.subscription(), harness.recorder(), harness.recorder()
    first.released.clear()
    here, joining = await harness.broker(), await harness.broker()
    await here.subscribe(subscription, first)
    messages = harness.messages(90, keys=30)
    await publish_all(here, messages)
    await first.until(lambda: len(first.deliveries) > 0, "a first batch")
    join = asyncio.create_task(joining.subscribe(subscription, second))
    await _until_two_members(harness, subscription)
    first.released.set()
    await join
    await until_one_got([first, second], messages)
    repeated = len(first.bodies) + len(second.bodies) - len(messages)
    assert repeated == 0, f"the rebalance delivered {repeated} twice"


async def _waiting(harness: Harness, queue: str, count_max: int) -> bool:
    return (await queue_counts(harness.runtime, queue))[0] <= count_max


async def _until_two_members(harness: Harness, subscription: Subscription) -> None:
    """Kafka counts one that asks to join."""

    async def are_two() -> bool:
        return await group_members(harness.runtime, subscription.subscriber) == 2

    await eventually(are_two, "two members", harness.deadline_s)


async def _consumers(harness: Harness, group: str, queue: str) -> int:
    if harness.system == "kafka":
        return await group_members(harness.runtime, group)
    return (await queue_counts(harness.runtime, queue))[1]
