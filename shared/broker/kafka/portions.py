"""Puts messages into the batches in which Kafka takes them, a partition each.

aiokafka does so by itself, one message after the other, each with a future, a look at the metadata and two
coroutines; through `create_batch` and `send_batch`, which it offers, a message costs a third of that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from time import time
from typing import Any, NamedTuple

from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder

_partition_of = DefaultPartitioner()


class Event(NamedTuple):
    """A message as it is sent; `place` is its place in what is published."""

    place: int
    key: bytes
    body: bytes
    headers: list[tuple[str, bytes]]


@dataclass(slots=True)
class Portion:
    """A batch for one partition, and the places of what it holds."""

    partition: int
    batch: BatchBuilder
    places: list[int] = field(default_factory=list)


def portions_of(
    events: Iterable[Event], partitions: Collection[int], create: Callable[[], BatchBuilder]
) -> list[Portion]:
    """The events in as few batches as hold them, in order within each partition; those of one key in the same one,
    which is where Kafka's own client puts them."""
    numbers: Any = sorted(partitions)
    newest: dict[int, Portion] = {}
    portions: list[Portion] = []
    now_ms = int(time() * 1_000)
    for event in events:
        partition = _partition_of(event.key, numbers, numbers)
        portion = newest.get(partition)
        if portion is None or not _add(portion, event, now_ms):
            portion = newest[partition] = Portion(partition, create())
            portions.append(portion)
            _add(portion, event, now_ms)
    for portion in portions:
        portion.batch.close()
    return portions


def _add(portion: Portion, event: Event, now_ms: int) -> bool:
    """False when it is full; an empty one takes an event of any size."""
    added = portion.batch.append(timestamp=now_ms, key=event.key, value=event.body, headers=event.headers)
    if added is not None:
        portion.places.append(event.place)
    return added is not None
