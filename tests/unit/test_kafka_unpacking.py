"""Batches are unpacked within a bound, by both halves of the client's parser, whatever they were packed with."""

from __future__ import annotations

import tracemalloc

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

from shared.broker.kafka import unpacking
from shared.broker.kafka.unpacking import HEADERS_MAX, UNPACKED_BYTES_MAX, unpack_within_bounds
from tests.conformance.servers_seen import KAFKA_CODECS, kafka_batch

MEBIBYTE = 1024 * 1024
Row = tuple[bytes | None, bytes, list[tuple[str, bytes]]]
packed = pytest.mark.parametrize("compression", KAFKA_CODECS[1:])


@pytest.fixture(autouse=True)
def _bounded() -> None:
    unpack_within_bounds()


def compiled(raw: bytes) -> list[bytes]:
    return [record.value for record in MemoryRecords(raw).next_batch()]


def in_python(raw: bytes) -> list[bytes]:
    return [record.value for record in _DefaultRecordBatchPy(raw)]


@packed
@pytest.mark.parametrize("size", [0, 100, 3 * MEBIBYTE, 20 * MEBIBYTE])
def test_what_is_within_the_bound_is_the_same_as_before(compression: str, size: int) -> None:
    values = [b"first", bytes(size)]
    raw = kafka_batch([(b"k", value, [("name", b"v")]) for value in values], compression=compression)
    assert compiled(raw) == in_python(raw) == values


@packed
@pytest.mark.parametrize("parse", [compiled, in_python])
def test_what_becomes_larger_is_refused_and_takes_no_more_than_the_bound(
    compression: str, parse: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = kafka_batch([(b"k", bytes(24 * MEBIBYTE), [])], compression=compression)
    monkeypatch.setattr(unpacking, "UNPACKED_BYTES_MAX", 4 * MEBIBYTE)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptRecordException, match="unpacked"):
            parse(raw)  # type: ignore[operator]
        assert tracemalloc.get_traced_memory()[1] < 16 * MEBIBYTE
    finally:
        tracemalloc.stop()


@packed
def test_a_record_of_nothing_but_headers_is_refused(compression: str) -> None:
    many = [("", b"")] * (HEADERS_MAX + 1)
    fine = [("", b"")] * HEADERS_MAX
    filler: Row = (b"k", bytes(MEBIBYTE), [])
    assert len(compiled(kafka_batch([filler, (b"k", b"v", fine)], compression=compression))) == 2
    with pytest.raises(CorruptRecordException, match="headers"):
        compiled(kafka_batch([(b"k", bytes(2 * HEADERS_MAX), many), filler], compression=compression))


def test_the_bound_leaves_room_for_what_this_system_itself_writes() -> None:
    assert UNPACKED_BYTES_MAX >= 32 * MEBIBYTE
