"""A hand-written aiokafka loop whose batches overlap.

`python -m bench.contenders.by_hand_kafka_overlapped CHANNEL SUBSCRIBER`. Three stages work at once, each on a
batch of its own: one polls, decodes and claims, one commits the effects, one marks the claims done and commits
the offsets. Batches pass from one to the next in order, so that order per key is kept and no offset is
committed before what lies before it; between two stages waits one batch at most.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.contenders.by_hand import Placed, Recorder, run_until_told
from bench.contenders.by_hand_kafka import POLL_MS, consumer_of
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll brought: the events that are ours to record, and where its partitions go on."""

    events: dict[str, Placed]
    offsets: dict[TopicPartition, int]


Stage = asyncio.Queue[Batch | None]
"""What waits for a stage; None behind the last."""


async def drain(settings: Settings, channel: str, subscriber: str, stopping: asyncio.Event) -> None:
    """Consume until told to stop."""
    consumer = consumer_of(settings, channel, subscriber)
    claimed, written = Stage(1), Stage(1)
    async with consumer, Recorder(settings, subscriber) as recorder, asyncio.TaskGroup() as stages:
        stages.create_task(_claim(consumer, recorder, settings.batch_max, claimed, stopping))
        stages.create_task(_write(recorder, claimed, written))
        stages.create_task(_finish(consumer, recorder, written))


async def _claim(
    consumer: AIOKafkaConsumer, recorder: Recorder, batch_max: int, claimed: Stage, stopping: asyncio.Event
) -> None:
    while not stopping.is_set():
        polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=batch_max)
        if polled:
            events = await recorder.claim(record.value for records in polled.values() for record in records)
            offsets = {partition: records[-1].offset + 1 for partition, records in polled.items()}
            await claimed.put(Batch(events, offsets))
    await claimed.put(None)


async def _write(recorder: Recorder, claimed: Stage, written: Stage) -> None:
    while (batch := await claimed.get()) is not None:
        if batch.events:
            await recorder.write(batch.events.values())
        await written.put(batch)
    await written.put(None)


async def _finish(consumer: AIOKafkaConsumer, recorder: Recorder, written: Stage) -> None:
    while (batch := await written.get()) is not None:
        if batch.events:
            await recorder.mark_done(batch.events)
        await consumer.commit(batch.offsets)


if __name__ == "__main__":
    told = asyncio.Event()
    run_until_told(drain(Settings.from_environment(), sys.argv[1], sys.argv[2], told), told)
