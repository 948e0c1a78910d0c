"""Lets the AMQP codec read what RabbitMQ accepts and the codec refuses: short strings and header names that are
not UTF-8, times beyond year 9999, tables nested too deeply.

For one of these pamqp fails the frame, aiormq drops the connection, and RabbitMQ delivers the message again to the
next connection: until the delivery limit puts it aside, together with whatever else was in flight. There is no
setting for it, so four of the codec's decoders are replaced; what they could read they read as before. A table of
headers keeps its bytes besides, and is written as they are, since the codec's values have lost their types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pamqp import decode, encode

from shared.broker.rabbit.internals import Decoder, replace_decoders, replace_encoders
from shared.broker.unreadable import UNREADABLE, TolerantBytes

_TIMESTAMP_BYTES = 8
_LENGTH_BYTES = 4


def read_what_is_not_utf8() -> None:
    """Replace the decoders, and the encoder of tables, for the whole process; twice does no harm."""
    replace_decoders({"shortstr": _short_string, "table": _table, "timestamp": _time}, {b"T": _time})
    replace_encoders({"table": _written_table})


def _tolerantly(decoder: Decoder, value: bytes) -> tuple[int, Any]:
    try:
        return decoder(value)
    except UnicodeDecodeError:
        return decoder(TolerantBytes(value))


def _short_string(value: bytes) -> tuple[int, Any]:
    return _tolerantly(decode.short_str, value)


class RawTable(dict[str, Any]):
    """A table of headers, as the codec reads it, with the bytes that it was read from, or is to be written as."""

    __slots__ = ("raw",)

    def __init__(self, values: Mapping[str, Any], raw: bytes) -> None:
        super().__init__(values)
        self.raw = raw


def _table(value: bytes) -> tuple[int, Any]:
    try:
        end, table = _tolerantly(decode.field_table, value)
    except (ValueError, RecursionError, ArithmeticError) as error:
        # Its length is known whatever is in it, and nothing that handles an event rests on its headers.
        end = _LENGTH_BYTES + int.from_bytes(value[:_LENGTH_BYTES], "big")
        table = {UNREADABLE: f"{type(error).__name__}: {error}"}
    return end, RawTable(table, value[:end]) if table else table


def _written_table(table: Any) -> bytes:
    return table.raw if isinstance(table, RawTable) else encode.field_table(table)


def _time(value: bytes) -> tuple[int, Any]:
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return _TIMESTAMP_BYTES, None
