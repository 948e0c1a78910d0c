"""How much of what strangers send is held in memory at once: bounded in bytes, whatever it is packed in."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace

from aiokafka import ConsumerRecord
from msgspec import structs

from shared.broker.base import BatchHandler, Delivery, Message, Settlement, destination_name
from shared.broker.rabbit.arriving import Arrived
from shared.broker.unreadable import UNREADABLE
from tests.conformance.harness import TYPE, Harness, Recorder, assert_in_order, eventually, only_on, publish_all
from tests.conformance.servers_seen import kafka_batch, publish_kafka_batches, queue_counts

LOOKS = 4
"""At what is held: everything that may be is there at the first, and each takes long."""
BOMB_BYTES = 40 * 1024 * 1024


@only_on("kafka")
async def check_a_batch_that_unpacks_to_too_much_is_put_aside_and_the_next_is_read(harness: Harness) -> None:
    broker, recorder, subscription = await harness.broker(), harness.recorder(), harness.subscription()
    await broker.subscribe(subscription, recorder)
    bombs = [kafka_batch([(b"key", bytes(BOMB_BYTES), [])], compression=name) for name in ("gzip", "lz4", "zstd")]
    bombs.append(kafka_batch([(b"key", bytes(20_000), [("", b"")] * 300_000)], compression="zstd"))
    good = [kafka_batch([(b"key", b"good-%d" % number, [])], compression="zstd") for number in range(len(bombs))]
    batches = [(0, batch) for pair in zip(bombs, good, strict=True) for batch in pair]
    await publish_kafka_batches(harness.runtime, destination_name("kafka", harness.channel), batches)
    expected = {b"good-%d" % number for number in range(len(bombs))}
    await recorder.until(lambda: expected <= set(recorder.bodies), "what comes behind is read, none lost")
    aside = [delivery for delivery in recorder.deliveries if UNREADABLE in delivery.headers]
    assert len(aside) == len(bombs)
    assert max(len(body) for body in recorder.bodies) < 1024 * 1024, "unpacked, and handed over"


async def check_large_messages_are_held_one_after_the_other(harness: Harness) -> None:
    """However many may be in flight by their number."""
    broker, recorder = await harness.broker(), harness.recorder()
    subscription = harness.subscription(in_flight_bytes_max=1024 * 1024)
    await broker.declare([], [subscription])
    large = [
        Message(harness.channel, TYPE, f"key-{number % 3}", b"key-%d:%06d" % (number % 3, number) + bytes(300_000))
        for number in range(40)
    ]
    small = harness.messages(30, keys=3, prefix="small-")
    await publish_all(broker, [*large, *small])
    place = destination_name(harness.system, harness.channel)
    weights: list[int] = []
    weigh = weighing(harness, subscription.queue, place, recorder, weights)
    await broker.subscribe(subscription, weigh)
    await recorder.until_settled(replace(message, body=beginning(message.body)) for message in [*large, *small])
    assert max(weights) < 8 * 1024 * 1024, f"held {max(weights)} bytes at once"
    assert_in_order(recorder.bodies)
    assert recorder.duplicates() == 0, "delivered twice"


async def check_large_dead_letters_are_held_one_after_the_other(harness: Harness) -> None:
    """Though replicas share them, in no order."""
    broker, subscription = await harness.broker(), harness.subscription(in_flight_bytes_max=1024 * 1024)
    await broker.declare([], [subscription])
    bodies = [b"letter-%d" % number + bytes(300_000) for number in range(20)]
    for body in bodies:
        letter = Delivery(body, {}, harness.channel, "key", redelivered=False, position="", token=None)
        await broker.publish_dead_letter(subscription, letter, {})
    recorders = [harness.recorder(), harness.recorder()]
    queue, place = f"{subscription.queue}.dlq", f"{harness.channel}.dlx"
    topic = f"{subscription.queue}.dlt"
    weights: list[int] = []
    for recorder in recorders:
        weigh = weighing(harness, queue, place if harness.system == "rabbit" else topic, recorder, weights)
        await (await harness.broker()).subscribe_dead_letters(subscription, "reader", weigh)

    async def all_settled() -> bool:
        return {body for recorder in recorders for body in recorder.settled} == {
            beginning(body) for body in bodies
        }

    await eventually(all_settled, "every letter is settled", harness.deadline_s)
    assert max(weights) < 8 * 1024 * 1024, f"held {max(weights)} bytes at once"


def weighing(harness: Harness, queue: str, place: str, recorder: Recorder, weights: list[int]) -> BatchHandler:
    """Before it settles anything it waits until the broker has sent all that it may; it notes what is held."""

    seen: list[int] = []

    async def all_here() -> bool:
        """The queue is empty, and nothing arrives any more."""
        ready, _ = await queue_counts(harness.runtime, queue)
        seen.append(held_in_memory(place))
        return not ready and seen[-3:] == [seen[-1]] * 3

    async def weigh(batch: Sequence[Delivery]) -> Sequence[Settlement]:
        if harness.system == "rabbit" and not weights:
            await eventually(all_here, "everything is sent", harness.deadline_s)
        if len(weights) < LOOKS:
            weights.append(held_in_memory(place))
        return await recorder(
            [structs.replace(delivery, body=beginning(delivery.body), token=None, sent=None) for delivery in batch]
        )

    return weigh


def beginning(body: bytes) -> bytes:
    return body[:30].rstrip(b"\0")


def held_in_memory(place: str) -> int:
    """The bytes of all the bodies from this exchange or topic that the clients' objects in this process hold."""
    held = [one for one in gc.get_objects() if type(one) in (Arrived, ConsumerRecord)]
    amqp = [one for one in held if isinstance(one, Arrived) and one.exchange == place]
    records = [one for one in held if isinstance(one, ConsumerRecord) and one.topic == place]
    return sum(len(one.body) for one in amqp) + sum(len(one.value or b"") for one in records)
