"""What Kafka's client holds ahead of a slow handler is bounded, however large the backlog is."""

from __future__ import annotations

import asyncio
import gc
import os

from aiokafka.consumer.fetcher import PartitionRecords

from deploy.native import Runtime
from shared.broker.base import Message
from shared.broker.kafka.fetching import AHEAD_BYTES_MIN, MIB, PARTITION_BYTES_MIN
from tests.conformance.harness import TYPE, Harness, eventually, publish_all

PARTITIONS = 12
EVENTS, EVENT_BYTES = 7_200, 2_000
"""14 MiB that no codec makes smaller, and 4 MiB ahead are worth while."""
POLL_S = 0.3
_STANDS_STILL = 3


async def test_a_backlog_is_fetched_a_few_megabytes_ahead_and_no_more(servers: Runtime) -> None:
    async with Harness(servers, "kafka") as harness:
        broker, recorder = await harness.broker(kafka_partitions=PARTITIONS), harness.recorder()
        subscription = harness.subscription()
        await broker.declare([harness.channel], [subscription])
        backlog = [
            Message(harness.channel, TYPE, f"key-{number}", b"%05d" % number + os.urandom(EVENT_BYTES))
            for number in range(EVENTS)
        ]
        await publish_all(broker, backlog)
        recorder.released.clear()
        await broker.subscribe(subscription, recorder)
        await recorder.until(lambda: bool(recorder.deliveries), "the first batch is delivered")
        held: list[int] = []

        async def stands_still() -> bool:
            await asyncio.sleep(POLL_S)
            held.append(fetched_ahead(f"{harness.channel}-events"))
            return held[-_STANDS_STILL:] == [held[-1]] * _STANDS_STILL

        await eventually(stands_still, "nothing more is fetched", harness.deadline_s)
        assert MIB < held[-1] <= max(AHEAD_BYTES_MIN, PARTITIONS * PARTITION_BYTES_MIN), f"{held} bytes"
        recorder.released.set()
        await recorder.until_settled(backlog)


def fetched_ahead(topic: str) -> int:
    """The bytes of the batches of this topic that clients in this process have not read to the end."""
    fetched = [one for one in gc.get_objects() if type(one) is PartitionRecords and one._tp.topic == topic]
    return sum(one._records.size_in_bytes() for one in fetched)
