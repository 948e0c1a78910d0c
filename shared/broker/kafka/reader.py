"""Reads one Kafka subscription: what a poll brings, and past what the client cannot read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError

from shared.broker.base import Subscription
from shared.broker.kafka.commits import Offsets
from shared.broker.kafka.fetching import next_fetch
from shared.broker.kafka.handover import Handover
from shared.broker.kafka.internals import fetch_by, partitions_behind
from shared.broker.kafka.unreadable import Record, TolerantReader, committed_positions, weight_of

_PORTION_RECORDS = 16
_RECOVERY_TIMEOUT_S = 10.0


class Reader:
    """One subscription's. Whoever takes its records holds what is in their partitions in the very same step: a
    rebalance could find nothing in hand otherwise."""

    def __init__(self, subscription: Subscription, subscriber: Any, handover: Handover) -> None:
        self._subscriber = subscriber
        self._handover = handover
        self._batch_max = min(subscription.batch_max, subscription.in_flight_max)
        self._bytes_max = subscription.in_flight_bytes_max
        self._record_bytes = 0.0  # the mean weight of the last ones
        self._tolerant = TolerantReader(subscription)

    async def poll(self, wait_ms: int, held: int = 0) -> tuple[Sequence[Record], int]:
        """What has come, up to a batch, after `wait_ms` at most, and how many bytes it takes; so many are held
        already."""
        records = await _portion(self._subscriber.consumer, wait_ms, self._batch_max)
        rebalances, weight = self._handover.rebalances, weight_of(records)
        while records and len(records) < self._batch_max and held + weight < self._bytes_max:
            # What is here already: it never waits.
            portion = await _portion(self._subscriber.consumer, 0, self._batch_max - len(records))
            if not portion or rebalances != self._handover.rebalances:
                break
            records += portion
            weight += weight_of(portion)
        if rebalances != self._handover.rebalances:
            return (), 0  # but it did, for others' partitions: what was ours comes again
        if records:
            self._record_bytes = weight / len(records)
        consumer = self._subscriber.consumer
        behind = partitions_behind(consumer)
        fetch_by(consumer, next_fetch(self._record_bytes, self._batch_max, self._bytes_max, behind))
        return records, weight

    async def recover(self) -> Sequence[Record]:
        """Go back to what is committed, and read on from there past what the client cannot read."""
        consumer, rebalances = self._subscriber.consumer, self._handover.rebalances
        async with asyncio.timeout(_RECOVERY_TIMEOUT_S):
            positions = await self._go_back()
            records, reached = await self._tolerant.read(consumer, positions, self._batch_max)
        if rebalances is None or rebalances != self._handover.rebalances:
            return ()  # not ours any more, or ours again from another offset
        for partition, offset in reached.items():
            consumer.seek(partition, offset)
        return records

    async def go_back(self) -> None:
        """Read again from what is committed."""
        async with asyncio.timeout(_RECOVERY_TIMEOUT_S):
            await self._go_back()

    async def _go_back(self) -> Offsets:
        positions = await committed_positions(self._subscriber.consumer)
        self.read_from(positions)
        return positions

    def read_from(self, offsets: Offsets) -> None:
        """Read these partitions from there on."""
        for partition, offset in offsets.items():
            with contextlib.suppress(IllegalStateError):  # not ours any more: the next owner reads it
                self._subscriber.consumer.seek(partition, offset)


async def _portion(consumer: AIOKafkaConsumer, timeout_ms: int, count_max: int) -> list[Record]:
    """So few records that even large ones are not too much before they are weighed."""
    polled = await consumer.getmany(timeout_ms=timeout_ms, max_records=min(_PORTION_RECORDS, count_max))
    return [record for partition in polled.values() for record in partition]


class Run(NamedTuple):
    """Records of one partition, one after the other in a batch."""

    partition: TopicPartition
    start: int
    end: int


def runs_of(records: Sequence[Record]) -> list[Run]:
    """What a batch consists of, in its order."""
    runs: list[Run] = []
    topic, number, start = "", -1, 0
    for at, record in enumerate(records):
        if record.partition != number or record.topic != topic:
            if at:
                runs.append(Run(TopicPartition(topic, number), start, at))
            topic, number, start = record.topic, record.partition, at
    if records:
        runs.append(Run(TopicPartition(topic, number), start, len(records)))
    return runs
