"""What aiokafka's consumer cannot read is read all the same; what nobody can read stands in for itself."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.record.memory_records import MemoryRecords

from shared.broker.base import Subscription
from shared.broker.kafka.unreadable import READS_MAX, Record, TolerantReader
from shared.broker.unreadable import UNREADABLE
from tests.conformance.servers_seen import BadName, kafka_batch

PARTITION = TopicPartition("order-events", 3)
BASE_OFFSET = slice(0, 8)


def reader() -> TolerantReader:
    return TolerantReader(Subscription(channel="order", subscriber="tester", types=frozenset()))


def batch(first: int, *values: bytes, name: str = "name") -> bytes:
    """A batch whose first record has this offset; the checksum does not cover that."""
    raw = bytearray(kafka_batch([(b"k", value, [(name, b"v")]) for value in values]))
    raw[BASE_OFFSET] = first.to_bytes(8, "big")
    return bytes(raw)


def damaged(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


def seen(records: list[Record]) -> list[tuple[int, bytes]]:
    return [(record.offset, record.value) for record in records]


def test_names_that_are_not_utf8_are_escaped() -> None:
    data = batch(5, b"a", b"b", name=BadName("name"))
    with pytest.raises(UnicodeDecodeError):  # once aiokafka reads it, this module can go
        list(MemoryRecords(data).next_batch())
    records = list(reader().records(PARTITION, 5, data, 7))
    assert seen(records) == [(5, b"a"), (6, b"b")]
    assert {record.headers for record in records} == {(("\\xff\\xfename", b"v"),)}


def test_reading_begins_at_the_position_and_leaves_out_what_was_cut_off() -> None:
    data = batch(5, b"a", b"b") + batch(7, b"c") + batch(8, b"d")[:-3]
    assert seen(list(reader().records(PARTITION, 6, data, 9))) == [(6, b"b"), (7, b"c")]


def test_a_damaged_batch_is_read_again_before_it_is_given_up_whole() -> None:
    tolerant, bad = reader(), damaged(batch(6, b"b", b"c", b"d"))
    data = batch(5, b"a") + bad + batch(9, b"e")
    for _ in range(READS_MAX - 1):
        assert seen(list(tolerant.records(PARTITION, 5, data, 10))) == [(5, b"a")]
    records = list(tolerant.records(PARTITION, 5, data, 10))
    assert seen(records) == [(5, b"a"), (8, bad), (9, b"e")]
    (header,) = records[1].headers
    assert header[0] == UNREADABLE
    assert b"offsets 6 to 8" in header[1]


def test_a_batch_that_came_damaged_once_is_not_given_up() -> None:
    tolerant, good = reader(), batch(5, b"a")
    for _ in range(READS_MAX - 1):
        assert list(tolerant.records(PARTITION, 5, damaged(good), 6)) == []
    assert seen(list(tolerant.records(PARTITION, 5, good, 6))) == [(5, b"a")]


@pytest.mark.parametrize(("lies", "last"), [(1_000_000, 5), (-7, 5)])
def test_a_damaged_batch_does_not_say_how_far_to_go(lies: int, last: int) -> None:
    raw = bytearray(batch(5, b"a"))
    raw[23:27] = lies.to_bytes(4, "big", signed=True)  # last offset delta
    tolerant = reader()
    for _ in range(READS_MAX - 1):
        assert list(tolerant.records(PARTITION, 5, bytes(raw), 6)) == []
    assert [record.offset for record in tolerant.records(PARTITION, 5, bytes(raw), 6)] == [last]
