"""What foreign producers write in transactions: taken back it has no effect, and no marker counts as waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer

from shared.broker.base import Broker, Subscription
from tests.conformance.harness import Harness, eventually, only_on, publish_all
from tests.conformance.servers_seen import BadName, kafka_batch, publish_kafka_batches

PARTITIONS = 3


@only_on("kafka")
async def check_what_a_producer_took_back_is_never_delivered(harness: Harness) -> None:
    """Nor where the batch behind it can only be read by ourselves."""
    broker, recorder, subscription = await harness.broker(), harness.recorder(), harness.subscription()
    await broker.declare([harness.channel], [subscription])
    topic = f"{harness.channel}-events"
    odd = kafka_batch([(b"key", b"odd", [(BadName("name"), b"v")])])
    async with _transactional(harness) as producer:
        await _send(producer, topic, b"taken back", commit=False)
        await publish_kafka_batches(harness.runtime, topic, [(0, odd)])
        await _send(producer, topic, b"meant", commit=True)
        await broker.subscribe(subscription, recorder)
        await recorder.until(lambda: {b"odd", b"meant"} <= set(recorder.bodies), "what was meant is delivered")
        await _send(producer, topic, b"taken back, too", commit=False)
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"undecided", partition=1)
        messages = harness.messages(30, keys=10)
        await publish_all(broker, messages)
        await producer.commit_transaction()
    await recorder.until_got(messages)
    await recorder.until(lambda: b"undecided" in recorder.bodies, "what was decided is delivered")
    assert not [body for body in recorder.bodies if b"taken back" in body], "what was taken back was delivered"
    assert recorder.bodies.count(b"meant") == PARTITIONS


@only_on("kafka")
async def check_nothing_waits_behind_the_last_event_of_a_transaction(harness: Harness) -> None:
    """The markers of transactions take offsets that no consumer is given: they count in nobody's lag."""
    broker, recorder, subscription = await harness.broker(), harness.recorder(), harness.subscription()
    await broker.declare([harness.channel], [subscription])
    topic, letters = f"{harness.channel}-events", f"{subscription.queue}.dlt"
    async with _transactional(harness) as producer:
        await _send(producer, topic, b"meant", commit=True)
        await _send(producer, topic, b"taken back", commit=False)
        await _send(producer, letters, b"letter", commit=True)
    assert [letter.body for letter in await broker.dead_letters(subscription)] == [b"letter"] * PARTITIONS
    await broker.subscribe(subscription, recorder)
    await recorder.until(lambda: len(recorder.settled) == PARTITIONS, "what was meant is settled")
    await eventually(lambda: _nothing_waits(broker, subscription), "nothing waits", harness.deadline_s)
    readers = harness.recorder()
    await broker.subscribe_dead_letters(subscription, "reader", readers)
    await readers.until(lambda: len(readers.settled) == PARTITIONS, "every letter is settled")
    await eventually(lambda: _no_letter_waits(broker, subscription), "no letter waits", harness.deadline_s)


@asynccontextmanager
async def _transactional(harness: Harness) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=harness.runtime.server_urls()["kafka"], transactional_id=harness.channel
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _send(producer: AIOKafkaProducer, topic: str, body: bytes, *, commit: bool) -> None:
    """The body to each partition, in one transaction."""
    await producer.begin_transaction()
    for partition in range(PARTITIONS):
        await producer.send_and_wait(topic, body, partition=partition)
    await (producer.commit_transaction() if commit else producer.abort_transaction())


async def _nothing_waits(broker: Broker, subscription: Subscription) -> bool:
    return [state.messages for state in await broker.queue_states([subscription])] == [0]


async def _no_letter_waits(broker: Broker, subscription: Subscription) -> bool:
    return [state.messages for state in await broker.dead_letter_states([subscription], "reader")] == [0]
