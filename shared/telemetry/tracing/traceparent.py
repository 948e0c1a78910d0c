"""`traceparent`, by which an event says which trace it belongs to (W3C Trace Context)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, cast

from opentelemetry.trace import SpanContext, TraceFlags

Fields = tuple[str, str, str]
"""Trace id, span id and flags, in hexadecimal."""

NOT_SAMPLED: Final = "not sampled"
Parent = str | None
"""What a span may have above it: a traceparent of version 00 and a recorded trace, `NOT_SAMPLED`, or nothing."""

_STANDARD: Final = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACEPARENT: Final = re.compile("([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LENGTH, _EVEN = 55, "02468ace"
"""With so many characters the flags are the last two, and end in an even digit where the trace is not recorded."""
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_LINE: Final = _LENGTH + 1
_HEXADECIMAL: Final = b"0123456789abcdef"


def read(traceparent: str | None) -> Fields | None:
    """The fields of a `traceparent`; None when it is absent or malformed.

    Of a later version these are read, and whatever stands behind them is not (Trace Context, 3.2.4).
    """
    found = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    known = version != "ff" and (version != "00" or more is None)
    return (trace_id, span_id, flags) if known and trace_id != _NO_TRACE and span_id != _NO_SPAN else None


def parent_of(traceparent: str | None) -> Parent:
    """What stands above a span in which a message with this `traceparent` is handled; None: it begins a trace."""
    if traceparent is not None and _STANDARD.fullmatch(traceparent):  # nearly always
        return NOT_SAMPLED if traceparent[-1] in _EVEN else traceparent
    fields = read(traceparent)
    if fields is None:
        return None
    return f"00-{fields[0]}-{fields[1]}-01" if says_sampled(fields) else NOT_SAMPLED


def parents_of(traceparents: Sequence[str | None]) -> Sequence[Parent]:
    """What stands above each of them. Nearly always all are of version 00, and either recorded or not: one look at
    all of them says so, at a sixth of the price."""
    if None not in traceparents:
        text = "\n".join([*cast("Sequence[str]", traceparents), ""])
        if _are_standard(text, len(traceparents)):
            flags = set(text[_LENGTH - 1 :: _LINE])
            if flags.isdisjoint(_EVEN):
                return traceparents
            if flags.issubset(_EVEN):
                return [NOT_SAMPLED] * len(traceparents)
    return [parent_of(traceparent) for traceparent in traceparents]


def _are_standard(text: str, count: int) -> bool:
    """Whether each of so many lines is what `_STANDARD` matches, each being one of as many texts: a column at a
    time, in a quarter of what the expression takes."""
    if len(text) != count * _LINE or not text.isascii():
        return False
    lines = text.encode()
    zeros, dashes = b"0" * count, b"-" * count
    return (
        lines[0::_LINE] == zeros == lines[1::_LINE]
        and lines[2::_LINE] == dashes == lines[35::_LINE] == lines[52::_LINE]
        and lines[_LENGTH::_LINE] == b"\n" * count
        and lines.translate(None, _HEXADECIMAL) == b"---\n" * count
        and f"-{_NO_TRACE}-" not in text
        and f"-{_NO_SPAN}-" not in text
    )


def fields_of(standard: str) -> Fields:
    """The fields of a traceparent of version 00."""
    return standard[3:35], standard[36:52], standard[53:]


def says_sampled(fields: Fields) -> bool:
    """Whether the trace is recorded; of the flags, only the first bit says that."""
    return fields[2][1] not in _EVEN


def is_sampled(traceparent: str | None) -> bool:
    """Whether a `traceparent` says that its trace is recorded."""
    if traceparent is None or (len(traceparent) == _LENGTH and traceparent[-1] in _EVEN):  # nearly always
        return False
    fields = read(traceparent)
    return fields is not None and says_sampled(fields)


def context_of(fields: Fields) -> SpanContext:
    """The span of another process that the fields name."""
    trace_id, span_id, _ = fields
    flags = TraceFlags.SAMPLED if says_sampled(fields) else TraceFlags.DEFAULT
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(flags))


def remote_span(traceparent: str | None) -> SpanContext | None:
    """The span of another process that a `traceparent` names; None when it is absent or malformed."""
    fields = read(traceparent)
    return None if fields is None else context_of(fields)


def write(context: SpanContext) -> str | None:
    """The `traceparent` of a span; None where there is none, as when the SDK is switched off."""
    trace_id, span_id, _, flags, _, is_valid = context
    return f"00-{trace_id:032x}-{span_id:016x}-{flags & TraceFlags.SAMPLED:02x}" if is_valid else None
