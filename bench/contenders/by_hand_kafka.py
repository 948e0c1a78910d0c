"""A hand-written aiokafka loop: `python -m bench.contenders.by_hand_kafka CHANNEL SUBSCRIBER [--inbox-alone]`."""

from __future__ import annotations

import asyncio
import sys

from aiokafka import AIOKafkaConsumer

from bench.contenders.by_hand import Recorder, run_until_told
from shared.broker import destination_name
from shared.broker.kafka import AHEAD_BYTES_MAX
from shared.settings import Settings

POLL_MS = 200


def consumer_of(settings: Settings, channel: str, subscriber: str) -> AIOKafkaConsumer:
    """A member of the group, not started; it fetches as much as the pipeline's at most, and commits by hand."""
    return AIOKafkaConsumer(
        destination_name("kafka", channel),
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=subscriber,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_bytes=AHEAD_BYTES_MAX,
        max_partition_fetch_bytes=1024 * 1024,
    )


async def drain(
    settings: Settings, channel: str, subscriber: str, stopping: asyncio.Event, *, inbox_alone: bool
) -> None:
    """Consume until told to stop: each poll is a batch, and one commit closes it."""
    consumer = consumer_of(settings, channel, subscriber)
    async with consumer, Recorder(settings, subscriber, inbox_alone=inbox_alone) as recorder:
        while not stopping.is_set():
            polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=settings.batch_max)
            if polled:
                await recorder.record(record.value for records in polled.values() for record in records)
                await consumer.commit()


if __name__ == "__main__":
    told = asyncio.Event()
    alone = "--inbox-alone" in sys.argv[3:]
    run_until_told(drain(Settings.from_environment(), sys.argv[1], sys.argv[2], told, inbox_alone=alone), told)
