"""Unpacks compressed batches within a bound: the broker bounds what is packed, and a megabyte may hold gigabytes.

What would unpack to more is a batch that cannot be read, and goes the way of those (`unreadable`).
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from typing import Any

import cramjam
from aiokafka.codec import snappy_decode
from aiokafka.errors import CorruptRecordException
from aiokafka.record.util import decode_varint_py

from shared.broker.kafka.internals import replace_unpackers, snappy_blocks
from shared.broker.kafka.topics import DEAD_LETTER_BYTES_MAX

UNPACKED_BYTES_MAX = 2 * DEAD_LETTER_BYTES_MAX
"""Twice the largest record that this system itself writes."""
HEADERS_MAX = 10_000
"""Of one record: each costs the client some 80 bytes, and two when it is packed."""
_LARGE_RECORD_BYTES = 2 * HEADERS_MAX
_LARGE_BATCH_BYTES = 512 * 1024
"""Smaller ones, such as our own, have no room for so many headers that it would matter."""
_FIRST_TRY_BYTES = 64 * 1024
_GROWTH = 8


def unpack_within_bounds() -> None:
    """Have aiokafka unpack with the functions of this module, for the whole process; twice does no harm."""
    replace_unpackers({"gzip": unpack_gzip, "snappy": unpack_snappy, "lz4": unpack_lz4, "zstd": unpack_zstd})


def unpack_gzip(packed: Any) -> bytes:
    """Raises `CorruptRecordException` for too much, or what gzip raises."""
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        unpacked = file.read(UNPACKED_BYTES_MAX + 1)
    _require_bounded(len(unpacked))
    return _with_few_headers(unpacked)


def unpack_snappy(packed: Any) -> bytes:
    """As `unpack_gzip`. Each block says how large it becomes."""
    _require_bounded(sum(cramjam.snappy.decompress_raw_len(block) for block in snappy_blocks(packed)))
    return _with_few_headers(snappy_decode(packed))


def unpack_lz4(packed: Any) -> bytes:
    """As `unpack_gzip`."""
    return _with_few_headers(_into_growing_room(cramjam.lz4.decompress_into, packed))


def unpack_zstd(packed: Any) -> bytes:
    """As `unpack_gzip`."""
    return _with_few_headers(_into_growing_room(cramjam.zstd.decompress_into, packed))


def _into_growing_room(decompress_into: Callable[[Any, bytearray], int], packed: Any) -> bytes:
    """The formats need not say how large they become, and a missing byte of room fails like damage."""
    size = max(_FIRST_TRY_BYTES, 4 * len(packed))
    while True:
        room = bytearray(min(size, UNPACKED_BYTES_MAX))
        try:
            count = decompress_into(packed, room)
        except cramjam.DecompressionError as error:
            if len(room) == UNPACKED_BYTES_MAX:
                message = f"{error}: damaged, or more than {UNPACKED_BYTES_MAX} bytes when it is unpacked"
                raise CorruptRecordException(message) from error
            size *= _GROWTH
        else:
            return bytes(memoryview(room)[:count])


def _require_bounded(size: int) -> None:
    if size > UNPACKED_BYTES_MAX:
        raise CorruptRecordException(f"more than {UNPACKED_BYTES_MAX} bytes when it is unpacked")


def _with_few_headers(unpacked: bytes) -> bytes:
    """The same. What is malformed the parser finds."""
    position, end = 0, len(unpacked) if len(unpacked) > _LARGE_BATCH_BYTES else 0
    while position < end:
        length, start = decode_varint_py(unpacked, position)
        if length > _LARGE_RECORD_BYTES and (count := _headers_of(unpacked, start)) > HEADERS_MAX:
            raise CorruptRecordException(f"a record with {count} headers, over {HEADERS_MAX}")
        position = start + max(0, length)
    return unpacked


def _headers_of(unpacked: bytes, position: int) -> int:
    """How many headers the record at this position says that it has; 0 when it ends before."""
    try:
        for _ in ("attributes", "timestamp", "offset"):
            _, position = decode_varint_py(unpacked, position)
        for _ in ("key", "value"):
            length, position = decode_varint_py(unpacked, position)
            position += max(0, length)
        return int(decode_varint_py(unpacked, position)[0])
    except IndexError:
        return 0
