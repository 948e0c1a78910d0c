"""Reads what aiokafka's consumer fails on: header names that are not UTF-8, batches that are damaged.

aiokafka fails the whole poll for one such record, for ever, and what it had taken from other partitions is gone.
Here the same bytes are fetched through its client and read by the Python half of its parser: names are decoded
tolerantly, and a batch that stays unreadable becomes one record with the batch's bytes, which goes the way of
everything that is no event: to the dead letters.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

from shared.broker.base import Subscription
from shared.broker.kafka.internals import (
    Stored,
    fetch_stored_bytes,
    is_intact,
    next_offset_of,
    tolerant_batch_records,
    transaction_part,
)
from shared.broker.unreadable import UNREADABLE

_log = structlog.get_logger(__name__)

Record: TypeAlias = "ConsumerRecord[Any, Any]"

READS_MAX = 3
"""How often a batch with a wrong checksum is read before it is given up: bytes that were damaged on their way come
whole the next time. One that is intact is never read better than the first time."""

_HEADER_BYTES = 80
_MAGIC = 2
_BATCH_START = struct.Struct(">qiib")  # base offset, length of what follows it, leader epoch, magic
_BEFORE_LENGTH_COUNTS = 12


def content_is_to_blame(error: Exception) -> bool:
    """Whether a poll failed for what it read; else the cluster, or the consumer, is in trouble."""
    return isinstance(error, ValueError | AssertionError | CorruptRecordException | UnsupportedCodecError)


def weight_of(records: Sequence[Record]) -> int:
    """About how many bytes of memory these take."""
    weight, before, of_headers = 0, None, 0
    for record in records:
        if record.headers != before:  # nearly always the same as of the one before
            before = record.headers
            of_headers = sum([len(name) + len(value or b"") + _HEADER_BYTES for name, value in before])
        weight += record.serialized_value_size + record.serialized_key_size + of_headers  # of none, -1
    return weight


async def committed_positions(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """Where the group stands in each assigned partition; the caller bounds the time."""
    committed = {partition: await consumer.committed(partition) for partition in consumer.assignment()}
    new = [partition for partition, offset in committed.items() if offset is None]
    return {**committed, **(await consumer.beginning_offsets(new) if new else {})}


class TolerantReader:
    """One subscription's. Remembers how often each partition's next batch could not be read."""

    def __init__(self, subscription: Subscription) -> None:
        self._queue = subscription.queue
        self._bytes_max = subscription.in_flight_bytes_max
        self._refused: dict[TopicPartition, tuple[int, int]] = {}  # offset, how often

    async def read(
        self, consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int], records_max: int
    ) -> tuple[list[Record], dict[TopicPartition, int]]:
        """Up to `records_max` records from these positions on, as many of each partition, until they weigh
        `in_flight_bytes_max`; and where to go on in each partition of which something was read, if only what
        nobody is given. The caller bounds the time."""
        fetched = await fetch_stored_bytes(consumer, positions)
        share = max(1, records_max // max(1, len(fetched)))
        records: list[Record] = []
        reached: dict[TopicPartition, int] = {}
        weight = 0
        for partition, stored in fetched.items():
            if len(records) == records_max or weight >= self._bytes_max:
                break
            reached[partition] = positions[partition]
            for record in islice(self.records(partition, stored, reached), min(share, records_max - len(records))):
                records.append(record)
                weight += weight_of([record])
                if weight >= self._bytes_max:
                    break
        return records, reached

    def records(
        self, partition: TopicPartition, stored: Stored, reached: dict[TopicPartition, int]
    ) -> Iterator[Record]:
        """The records from `reached[partition]` on, which moves along."""
        taken_back = _TakenBack(stored.aborted)
        batches = list(_batches(stored.data))
        next_offsets = [_BATCH_START.unpack_from(raw)[0] for raw in batches[1:]] + [stored.end]
        for raw, next_offset in zip(batches, next_offsets, strict=False):
            position = reached[partition]
            try:
                for record in () if taken_back.includes(raw) else _batch_records(partition, raw):
                    if record.offset >= position:
                        position = reached[partition] = record.offset + 1
                        yield record
                reached[partition] = max(position, next_offset_of(raw))
            except Exception as error:  # noqa: BLE001  damaged bytes fail in every way there is
                if not is_intact(raw) and not self._given_up(partition, position):
                    _log.warning("kafka.unreadable", queue=self._queue, partition=partition, error=repr(error))
                    return
                stand_in = _stand_in(partition, position, raw, next_offset, error)
                _log.error(
                    "kafka.given_up",
                    queue=self._queue,
                    partition=partition,
                    first_offset=position,
                    last_offset=stand_in.offset,
                    error=repr(error),
                )
                reached[partition] = stand_in.offset + 1
                yield stand_in

    def _given_up(self, partition: TopicPartition, position: int) -> bool:
        offset, times = self._refused.get(partition, (position, 0))
        times = times + 1 if offset == position else 1
        self._refused[partition] = (position, times)
        return times >= READS_MAX


class _TakenBack:
    """Which batches of a partition are of transactions that were aborted, told of one after the other (KIP-98)."""

    def __init__(self, aborted: Sequence[tuple[int, int]]) -> None:
        self._to_come = deque(sorted(aborted, key=lambda transaction: transaction[1]))
        self._producers: set[int] = set()

    def includes(self, raw: bytes) -> bool:
        """Of the next batch. Raises whatever damaged bytes lead to."""
        if _BATCH_START.unpack_from(raw)[3] != _MAGIC:
            raise CorruptRecordException("not a batch of the format that Kafka 4 writes")
        part = transaction_part(raw)
        if part is None:
            return False
        while self._to_come and self._to_come[0][1] <= part.first_offset:
            self._producers.add(self._to_come.popleft()[0])
        included = part.producer in self._producers
        if part.aborts:  # what this producer sends next is of another transaction
            self._producers.discard(part.producer)
        return included


def _batches(data: bytes) -> Iterator[bytes]:
    """The whole batches of an answer; the last one may have been cut off."""
    start = 0
    while start + _BATCH_START.size <= len(data):
        _base, length, _epoch, _magic = _BATCH_START.unpack_from(data, start)
        end = start + _BEFORE_LENGTH_COUNTS + length
        if length <= 0 or end > len(data):
            return
        yield data[start:end]
        start = end


def _batch_records(partition: TopicPartition, raw: bytes) -> Iterator[Record]:
    """Raises whatever damaged bytes lead to."""
    for record in tolerant_batch_records(raw):
        yield _record(
            partition,
            record.offset,
            record.key,
            record.value,
            tuple(record.headers),
            timestamp_ms=record.timestamp,
        )


def _stand_in(partition: TopicPartition, position: int, raw: bytes, next_offset: int, error: Exception) -> Record:
    """One record for a batch that cannot be read, at the batch's last offset. Its own word for that may be what is
    damaged: what comes next, or the log's end, bounds it, and it never stands still."""
    last = max(position, min(next_offset_of(raw), next_offset) - 1)
    reason = f"offsets {position} to {last}: {error!r}"
    return _record(partition, last, None, raw, ((UNREADABLE, reason.encode("utf-8", "backslashreplace")),))


def _record(
    partition: TopicPartition,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: tuple[tuple[str, bytes | None], ...],
    *,
    timestamp_ms: int = 0,
) -> Record:
    return ConsumerRecord(
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        timestamp=timestamp_ms,
        timestamp_type=0,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=-1 if key is None else len(key),
        serialized_value_size=-1 if value is None else len(value),
        headers=headers,
    )
