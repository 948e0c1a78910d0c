"""What aiokafka's consumer cannot read is read all the same; what nobody can read stands in for itself."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from shared.broker.base import Subscription
from shared.broker.kafka.internals import Stored
from shared.broker.kafka.unreadable import READS_MAX, Record, TolerantReader
from shared.broker.unreadable import UNREADABLE
from tests.conformance.servers_seen import BadName, kafka_batch

PARTITION = TopicPartition("order-events", 3)
BASE_OFFSET, CHECKSUM, ATTRIBUTES = slice(0, 8), slice(17, 21), slice(21, 23)
CONTROL = 0x20


def reader() -> TolerantReader:
    return TolerantReader(Subscription(channel="order", subscriber="tester", types=frozenset()))


def batch(first: int, *values: bytes, name: str = "name", transaction: int | None = None) -> bytes:
    """A batch whose first record has this offset; the checksum does not cover that."""
    raw = bytearray(kafka_batch([(b"k", value, [(name, b"v")]) for value in values], transaction=transaction))
    raw[BASE_OFFSET] = first.to_bytes(8, "big")
    return bytes(raw)


def damaged(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


def transactional(first: int, producer: int, *values: bytes) -> bytes:
    """A batch of a transaction."""
    return batch(first, *values, transaction=producer)


def marker(first: int, producer: int, *, commits: bool) -> bytes:
    """What a broker writes at the end of a transaction."""
    version_and_type = b"\0\0" + (b"\0\1" if commits else b"\0\0")
    raw = bytearray(kafka_batch([(version_and_type, b"", ())], transaction=producer))
    raw[BASE_OFFSET] = first.to_bytes(8, "big")
    raw[ATTRIBUTES] = (int.from_bytes(raw[ATTRIBUTES], "big") | CONTROL).to_bytes(2, "big")
    raw[CHECKSUM] = calc_crc32c(bytes(raw[ATTRIBUTES.start :])).to_bytes(4, "big")
    return bytes(raw)


def read(tolerant: TolerantReader, position: int, data: bytes, end: int) -> list[Record]:
    return list(tolerant.records(PARTITION, Stored(data, end), {PARTITION: position}))


def seen(records: list[Record]) -> list[tuple[int, bytes]]:
    return [(record.offset, record.value) for record in records]


def test_names_that_are_not_utf8_are_escaped() -> None:
    data = batch(5, b"a", b"b", name=BadName("name"))
    with pytest.raises(UnicodeDecodeError):  # once aiokafka reads it, this module can go
        list(MemoryRecords(data).next_batch())
    records = read(reader(), 5, data, 7)
    assert seen(records) == [(5, b"a"), (6, b"b")]
    assert {record.headers for record in records} == {(("\\xff\\xfename", b"v"),)}


def test_reading_begins_at_the_position_and_leaves_out_what_was_cut_off() -> None:
    data = batch(5, b"a", b"b") + batch(7, b"c") + batch(8, b"d")[:-3]
    assert seen(read(reader(), 6, data, 9)) == [(6, b"b"), (7, b"c")]


def test_a_damaged_batch_is_read_again_before_it_is_given_up_whole() -> None:
    tolerant, bad = reader(), damaged(batch(6, b"b", b"c", b"d"))
    data = batch(5, b"a") + bad + batch(9, b"e")
    for _ in range(READS_MAX - 1):
        assert seen(read(tolerant, 5, data, 10)) == [(5, b"a")]
    records = read(tolerant, 5, data, 10)
    assert seen(records) == [(5, b"a"), (8, bad), (9, b"e")]
    (header,) = records[1].headers
    assert header[0] == UNREADABLE
    assert b"offsets 6 to 8" in header[1]


def test_a_batch_that_came_damaged_once_is_not_given_up() -> None:
    tolerant, good = reader(), batch(5, b"a")
    for _ in range(READS_MAX - 1):
        assert read(tolerant, 5, damaged(good), 6) == []
    assert seen(read(tolerant, 5, good, 6)) == [(5, b"a")]


@pytest.mark.parametrize(("lies", "last"), [(1_000_000, 5), (-7, 5)])
def test_a_damaged_batch_does_not_say_how_far_to_go(lies: int, last: int) -> None:
    raw = bytearray(batch(5, b"a"))
    raw[23:27] = lies.to_bytes(4, "big", signed=True)  # last offset delta
    tolerant = reader()
    for _ in range(READS_MAX - 1):
        assert read(tolerant, 5, bytes(raw), 6) == []
    assert [record.offset for record in read(tolerant, 5, bytes(raw), 6)] == [last]


def test_what_was_taken_back_is_passed_by_and_the_producers_next_transaction_is_not() -> None:
    data = (
        transactional(0, 7, b"taken back")
        + transactional(1, 8, b"another's")
        + batch(2, b"of none", name=BadName("name"))
        + transactional(3, 7, b"taken back")
        + marker(4, 7, commits=False)
        + transactional(5, 7, b"meant")
        + marker(6, 7, commits=True)
    )
    reached = {PARTITION: 0}
    records = list(reader().records(PARTITION, Stored(data, 7, [(7, 0)]), reached))
    assert seen(records) == [(1, b"another's"), (2, b"of none"), (5, b"meant")]
    assert reached == {PARTITION: 7}, "the marker is passed by, too"


def test_of_nothing_but_what_was_taken_back_the_end_is_reached() -> None:
    reached = {PARTITION: 3}
    data = transactional(3, 7, b"taken back", b"too") + marker(5, 7, commits=False)
    assert list(reader().records(PARTITION, Stored(data, 6, [(7, 3)]), reached)) == []
    assert reached == {PARTITION: 6}
