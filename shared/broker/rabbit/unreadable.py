"""Lets the AMQP codec read what RabbitMQ accepts and the codec refuses: short strings and header names that are
not UTF-8, times beyond year 9999, tables nested too deeply.

For one of these pamqp fails the frame, aiormq drops the connection, and RabbitMQ delivers the message again to the
next connection: until the delivery limit puts it aside, together with whatever else was in flight. There is no
setting for it, so four of the codec's decoders are replaced; what they could read they read as before.
"""

from __future__ import annotations

from typing import Any

from pamqp import decode

from shared.broker.rabbit.internals import Decoder, replace_decoders
from shared.broker.unreadable import UNREADABLE, TolerantBytes

_TIMESTAMP_BYTES = 8
_LENGTH_BYTES = 4


def read_what_is_not_utf8() -> None:
    """Replace the decoders, for the whole process; once is enough, and twice does no harm."""
    replace_decoders({"shortstr": _short_string, "table": _table, "timestamp": _time}, {b"T": _time})


def _tolerantly(decoder: Decoder, value: bytes) -> tuple[int, Any]:
    try:
        return decoder(value)
    except UnicodeDecodeError:
        return decoder(TolerantBytes(value))


def _short_string(value: bytes) -> tuple[int, Any]:
    return _tolerantly(decode.short_str, value)


def _table(value: bytes) -> tuple[int, Any]:
    try:
        return _tolerantly(decode.field_table, value)
    except (ValueError, RecursionError, ArithmeticError) as error:
        # Its length is known whatever is in it, and nothing that handles an event rests on its headers.
        end = _LENGTH_BYTES + int.from_bytes(value[:_LENGTH_BYTES], "big")
        return end, {UNREADABLE: f"{type(error).__name__}: {error}"}


def _time(value: bytes) -> tuple[int, Any]:
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return _TIMESTAMP_BYTES, None
