"""What is sent to Kafka of messages, in the batches in which it takes them, a partition each.

aiokafka does so by itself, one message after the other, each with a future, a look at the metadata and two
coroutines; through `create_batch` and `send_batch`, which it offers, a message costs a third of that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from time import time
from typing import Any, NamedTuple

from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder

from shared.broker.base import Message, destination_name
from shared.broker.kafka.topics import RECORD_BYTES_MAX
from shared.envelope import CONTENT_TYPE
from shared.errors import EventTooLargeError, PermanentError, TandemError, UnavailableError

_RECORD_OVERHEAD_BYTES = 1_024  # the record's own fields
_partition_of = DefaultPartitioner()


class Event(NamedTuple):
    """A message as it is sent; `place` is its place in what is published."""

    place: int
    key: bytes
    body: bytes
    headers: list[tuple[str, bytes]]


def events_of(
    messages: Sequence[Message], channels: Collection[str], prefix: str
) -> tuple[dict[str, list[Event]], dict[int, TandemError]]:
    """Those that can be sent, by their topics; and why the others cannot, by their places."""
    events: dict[str, list[Event]] = {}
    refused: dict[int, TandemError] = {}
    stopped_keys: set[str] = set()
    for place, message in enumerate(messages):
        try:
            if message.key in stopped_keys:
                raise UnavailableError("an earlier event of its key was not sent")
            if message.channel not in channels:
                raise UnavailableError(f"channel {message.channel} was not declared")
            event = _event(place, message)
        except TandemError as error:
            stopped_keys.add(message.key)
            refused[place] = error
        else:
            events.setdefault(destination_name("kafka", message.channel, prefix), []).append(event)
    return events, refused


def _event(place: int, message: Message) -> Event:
    """What is sent. Raises `EventTooLargeError`, `PermanentError`."""
    try:
        headers = _with_headers(message.type, message.headers) if message.headers else _headers(message.type)
        key = message.key.encode()
        size = len(message.body) + len(key) + sum(len(name.encode()) + len(value) for name, value in headers)
    except UnicodeError as error:
        raise PermanentError(f"Kafka: {error}") from error  # its repr holds all of the text
    if size + _RECORD_OVERHEAD_BYTES > RECORD_BYTES_MAX:
        raise EventTooLargeError(f"Kafka: {size} bytes with key and headers, over the {RECORD_BYTES_MAX} allowed")
    return Event(place, key, message.body, headers)


@lru_cache(maxsize=256)
def _headers(event_type: str) -> list[tuple[str, bytes]]:
    """Those of an event that has none of its own, as nearly all. Raises `UnicodeError`."""
    return _with_headers(event_type, {})


def _with_headers(event_type: str, own: Mapping[str, str]) -> list[tuple[str, bytes]]:
    headers = {"content-type": CONTENT_TYPE, "type": event_type, **own}
    return [(name, text.encode()) for name, text in headers.items()]


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
