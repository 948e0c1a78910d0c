"""What goes over the pipe between parent and child: frames of a kind, JSON fields and a body of bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Any, Final

import orjson

FIELDS_BYTES_MAX: Final = 262_144
"""Six times what the texts of a failure come to, for JSON may need that much."""
BODY_BYTES_MAX: Final = 64 * 2**20
_HEAD = Struct("!BII")


class Kind(IntEnum):
    """CALL goes to the child, the others come from it."""

    CALL = 1
    READY = 2
    BEGUN = 3
    PROGRESS = 4
    OUTCOME = 5


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `fields` are few and small."""

    kind: Kind
    fields: Mapping[str, Any]
    body: bytes = b""


class BrokenFrameError(Exception):
    """The bytes are no frame of ours: something else wrote into the pipe, or it ended in the middle of one."""


def encode(frame: Frame) -> bytes:
    """The frame as it goes over the pipe."""
    fields = orjson.dumps(frame.fields)
    return b"".join([_HEAD.pack(frame.kind, len(fields), len(frame.body)), fields, frame.body])


def receive(pipe: socket.socket) -> Frame | None:
    """Wait for a frame; None when the other end is closed."""
    head = _exactly(pipe, _HEAD.size)
    if head is None:
        return None
    kind, fields_size, body_size = _sizes(head)
    rest = _exactly(pipe, fields_size + body_size)
    return None if rest is None else _frame(kind, rest, fields_size)


async def read(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame; None when the other end is closed. Raises `BrokenFrameError`."""
    try:
        head = await reader.readexactly(_HEAD.size)
        kind, fields_size, body_size = _sizes(head)
        rest = await reader.readexactly(fields_size + body_size)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise BrokenFrameError("it ended in the middle of a frame") from None
        return None
    except OSError:
        return None
    return _frame(kind, rest, fields_size)


def _sizes(head: bytes) -> tuple[Kind, int, int]:
    number, fields_size, body_size = _HEAD.unpack(head)
    if number not in Kind.__members__.values() or fields_size > FIELDS_BYTES_MAX or body_size > BODY_BYTES_MAX:
        raise BrokenFrameError("its head is none of ours")
    return Kind(number), fields_size, body_size


def _frame(kind: Kind, rest: bytes, fields_size: int) -> Frame:
    try:
        return Frame(kind, orjson.loads(rest[:fields_size]), rest[fields_size:])
    except orjson.JSONDecodeError:
        raise BrokenFrameError("its fields are no JSON") from None


def _exactly(pipe: socket.socket, size: int) -> bytes | None:
    pieces = bytearray()
    while len(pieces) < size:
        piece = pipe.recv(min(size - len(pieces), 2**20))
        if not piece:
            return None
        pieces += piece
    return bytes(pieces)
