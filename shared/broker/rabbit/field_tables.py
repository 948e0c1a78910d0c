"""AMQP's tables of headers, read and written so that every value keeps its type.

The codec makes Python values of them: which integer or float a value was is lost, text that is not UTF-8 it cannot
write, and names over 128 bytes it cuts. Source: RabbitMQ's errata to AMQP 0-9-1, section 3.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from shared.broker.base import Header

_FIXED = {
    b"t": ("boolean", struct.Struct(">?")),
    b"b": ("int8", struct.Struct(">b")),
    b"B": ("uint8", struct.Struct(">B")),
    b"s": ("int16", struct.Struct(">h")),
    b"u": ("uint16", struct.Struct(">H")),
    b"I": ("int32", struct.Struct(">i")),
    b"i": ("uint32", struct.Struct(">I")),
    b"l": ("int64", struct.Struct(">q")),
    b"f": ("float32", struct.Struct(">f")),
    b"d": ("float64", struct.Struct(">d")),
    b"T": ("timestamp", struct.Struct(">Q")),
}
_TAGS = {name: (tag, packed) for tag, (name, packed) in _FIXED.items()}
_DECIMAL = struct.Struct(">Bi")
_LENGTH = struct.Struct(">I")
_DEPTH_MAX = 100
"""Tables and arrays within one another; what is deeper no JSON of them could be shown."""
_UNREADABLE = (ValueError, IndexError, struct.error, RecursionError)


def read_table(raw: bytes) -> list[Header] | None:
    """The headers of a table with its length in front; None for one that cannot be read."""
    try:
        return _headers(raw[_LENGTH.size :], 0)
    except _UNREADABLE:
        return None


def write_table(headers: Iterable[Header]) -> bytes:
    """The table, with its length in front. Raises `ValueError` for what AMQP has no room for."""
    written = b"".join(_named(header.name) + _tagged(header.type, header.value) for header in headers)
    return _LENGTH.pack(len(written)) + written


def _headers(data: bytes, depth: int) -> list[Header]:
    headers: list[Header] = []
    start = 0
    while start < len(data):
        end = start + 1 + data[start]
        name = data[start + 1 : end].decode("utf-8", "backslashreplace")
        kind, value, start = _value(data, end, depth)
        headers.append(Header(name, kind, value))
    return headers


def _value(data: bytes, start: int, depth: int) -> tuple[str, Any, int]:
    """The type and the value whose tag stands there, and where the next one begins."""
    tag, start = data[start : start + 1], start + 1
    if tag in _FIXED:
        kind, packed = _FIXED[tag]
        (number,) = packed.unpack_from(data, start)
        is_said = not isinstance(number, float) or math.isfinite(number)
        return kind, number if is_said else str(number), start + packed.size
    if tag == b"D":
        scale, digits = _DECIMAL.unpack_from(data, start)
        return "decimal", str(Decimal(digits).scaleb(-scale)), start + _DECIMAL.size
    if tag == b"V":
        return "null", None, start
    begin = start + _LENGTH.size
    end = begin + _LENGTH.unpack_from(data, start)[0]
    if tag not in (b"S", b"x", b"F", b"A") or end > len(data):
        raise ValueError(f"no value of AMQP: {tag!r}")
    return *_counted(tag, data[begin:end], depth), end


def _counted(tag: bytes, content: bytes, depth: int) -> tuple[str, Any]:
    """What has its length in front."""
    if tag in (b"F", b"A") and depth >= _DEPTH_MAX:
        raise ValueError("nested too deeply")
    if tag == b"F":
        return "table", [_as_object(header) for header in _headers(content, depth + 1)]
    if tag == b"A":
        items: list[dict[str, Any]] = []
        start = 0
        while start < len(content):
            kind, value, start = _value(content, start, depth + 1)
            items.append({"type": kind, "value": value})
        return "array", items
    if tag == b"x":
        return "bytes", base64.b64encode(content).decode()
    try:
        return "text", content.decode()
    except UnicodeDecodeError:
        return "text-base64", base64.b64encode(content).decode()


def _as_object(header: Header) -> dict[str, Any]:
    return {"name": header.name, "type": header.type, "value": header.value}


def _named(name: str) -> bytes:
    encoded = name.encode()
    if len(encoded) > 255:
        raise ValueError(f"a header's name has {len(encoded)} bytes")
    return bytes((len(encoded),)) + encoded


def _tagged(kind: str, value: Any) -> bytes:
    if kind in _TAGS:
        tag, packed = _TAGS[kind]
        return tag + packed.pack(float(value) if kind.startswith("float") else value)
    if kind == "decimal":
        sign, digits, exponent = Decimal(value).as_tuple()
        unscaled = int("".join(map(str, digits))) * (-1 if sign else 1)
        return b"D" + _DECIMAL.pack(-int(exponent), unscaled)
    if kind == "null":
        return b"V"
    tag, content = _content(kind, value)
    return tag + _LENGTH.pack(len(content)) + content


def _content(kind: str, value: Any) -> tuple[bytes, bytes]:
    """The tag and the content of what has its length in front."""
    if kind == "table":
        return b"F", write_table(Header(**item) for item in value)[_LENGTH.size :]
    if kind == "array":
        return b"A", b"".join(_tagged(item["type"], item["value"]) for item in value)
    if kind == "text":
        return b"S", value.encode()
    if kind in ("bytes", "text-base64"):
        return b"x" if kind == "bytes" else b"S", base64.b64decode(value)
    raise ValueError(f"AMQP has no {kind}")
