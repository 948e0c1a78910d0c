"""Spans as OTLP Protobuf messages, as a collector takes them (opentelemetry/proto/trace/v1/trace.proto).

The SDK makes an object for each attribute of each span: 40 µs for a span. Here what all spans of a shape have in
common is bytes already, made by the SDK's own encoder, and a span of an event is those bytes with its own behind
them. It says the same, field by field: a message may have its fields in any order, and two that are joined are
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN_CONTEXT

from shared.telemetry.tracing.event_spans import OUTCOME, EventSpan, LinkTo, Shape
from shared.telemetry.tracing.span_batches import Ended, SpanBatch, readable

_LOCAL, _REMOTE = 0x100, 0x300
"""Flags of a span and of a link: it is known whether the other one is another process's, and whether it is."""
_IDS_AND_TIMES = Struct("<2s16s2s8sBQBQ2sI")
"""Tags and fields `trace_id`, `span_id`, `start_time_unix_nano`, `end_time_unix_nano` and `flags`."""
_LINK = Struct("<2s16s2s8sBI")
_TRACE_STATE, _ATTRIBUTE, _SPAN_LINK = 3, 9, 13
"""Numbers of a span's fields."""
_TRACE_ID, _PARENT_ID = slice(3, 35), slice(36, 52)
"""Where they stand in a traceparent."""


def request_of(spans: Sequence[Ended]) -> bytes:
    """An `ExportTraceServiceRequest` with these spans."""
    own: dict[tuple[Resource, InstrumentationScope], list[EventSpan | SpanBatch]] = {}
    others: list[ReadableSpan | EventSpan] = []
    for span in spans:
        if isinstance(span, SpanBatch) or (isinstance(span, EventSpan) and span.more is None):
            own.setdefault(span.origin, []).append(span)
        else:
            others.append(span)
    parts = [encode_spans(readable(others)).SerializePartialToString()] if others else []
    return b"".join([*parts, *(_from_one(*origin, group) for origin, group in own.items())])


def _from_one(resource: Resource, scope: InstrumentationScope, spans: Sequence[EventSpan | SpanBatch]) -> bytes:
    of_resource, of_scope, resource_schema, scope_schema = _around(resource, scope)
    links: tuple[LinkTo, ...] = ()
    links_bytes = b""
    parts = [of_scope]
    for span in spans:
        if isinstance(span, SpanBatch):
            parts += _of_batch(span)
            continue
        if span.links is not links:  # all of a batch have the same
            links, links_bytes = span.links, b"".join(map(_link, span.links))
        parts.append(_field(2, _span(span, links_bytes)))
    parts.append(scope_schema)
    return _field(1, b"".join([of_resource, _field(2, b"".join(parts)), resource_schema]))


@lru_cache(maxsize=64)
def _around(resource: Resource, scope: InstrumentationScope) -> tuple[bytes, bytes, bytes, bytes]:
    """What says where spans come from: `resource` and `scope`, and the schemas of both."""
    empty = ReadableSpan("", INVALID_SPAN_CONTEXT, resource=resource, instrumentation_scope=scope)
    [message] = encode_spans([empty]).resource_spans
    [scoped] = message.scope_spans
    return (
        _field(1, message.resource.SerializeToString()),
        _field(1, scoped.scope.SerializeToString()),
        _field(3, message.schema_url.encode()),
        _field(3, scoped.schema_url.encode()),
    )


def _span(span: EventSpan, links: bytes) -> bytes:
    constant, keys, key_of_count = _of_shape(span.shape)
    ids_and_times = _IDS_AND_TIMES.pack(
        b"\x0a\x10", bytes.fromhex(span.trace_id), b"\x12\x08", bytes.fromhex(span.span_id),
        0x39, span.start_ns, 0x41, span.end_ns, b"\x85\x01", _REMOTE if span.remote else _LOCAL,
    )  # fmt: skip
    parts = [ids_and_times, constant]
    if span.parent_id:
        parts.append(b"\x22\x08" + bytes.fromhex(span.parent_id))
    if span.state:
        state = ",".join(f"{key}={value}" for key, value in span.state.items())
        parts.append(_field(_TRACE_STATE, state.encode()))
    for key, value in zip(keys, span.values, strict=False):
        parts.append(_text(key, value))
    if key_of_count is not None:
        parts.append(_count(key_of_count, span.values[-1]))
    if span.outcome is not None:
        parts.append(_outcome(span.outcome))
    parts.append(links)
    return b"".join(parts)


def _of_batch(batch: SpanBatch) -> list[bytes]:
    constant, keys, key_of_count = _of_shape(batch.shape)
    links = b"".join(map(_link, batch.links))
    outcomes = [b""] * len(batch) if batch.outcomes is None else map(_outcome, batch.outcomes)
    trace_ids, parent_ids = (
        bytes.fromhex("".join([parent[part] for parent in batch.parents])) for part in (_TRACE_ID, _PARENT_ID)
    )
    span_ids = bytes.fromhex("".join(batch.span_ids))
    spans = []
    own = zip(batch.rows(), batch.starts_ns, outcomes, strict=True)
    for number, (values, start_ns, outcome) in enumerate(own):
        eight = slice(8 * number, 8 * number + 8)
        ids_and_times = _IDS_AND_TIMES.pack(
            b"\x0a\x10", trace_ids[16 * number : 16 * number + 16], b"\x12\x08", span_ids[eight],
            0x39, start_ns, 0x41, batch.end_ns, b"\x85\x01", _REMOTE,
        )  # fmt: skip
        parts = [ids_and_times, constant, b"\x22\x08", parent_ids[eight], *map(_text, keys, values)]
        if key_of_count is not None:
            parts.append(_count(key_of_count, values[-1]))
        spans.append(_field(2, b"".join([*parts, outcome, links])))
    return spans


@lru_cache(maxsize=1_024)
def _of_shape(shape: Shape) -> tuple[bytes, tuple[bytes, ...], bytes | None]:
    """What all its spans have, and the keys of what each has its own value for."""
    plain = ReadableSpan(shape.name, INVALID_SPAN_CONTEXT, attributes=shape.fixed, kind=shape.kind)
    message = encode_spans([plain]).resource_spans[0].scope_spans[0].spans[0]
    for name in ("trace_id", "span_id", "flags"):
        message.ClearField(name)
    keys = tuple(_field(1, key.encode()) for key in shape.varying)
    return message.SerializeToString(), keys, None if shape.counted is None else _field(1, shape.counted.encode())


@lru_cache(maxsize=64)
def _outcome(outcome: str) -> bytes:
    return _text(_field(1, OUTCOME.encode()), outcome)


def _text(key: bytes, value: str) -> bytes:
    """An attribute; what UTF-8 has no bytes for is replaced, and what is no text is its text."""
    return _field(_ATTRIBUTE, key + _field(2, _field(1, str(value).encode(errors="replace"))))


def _count(key: bytes, count: int) -> bytes:
    return _field(_ATTRIBUTE, key + _field(2, b"\x18" + _varint(count)))


def _link(link: LinkTo) -> bytes:
    trace_id, span_id, remote = link
    flags = _REMOTE if remote else _LOCAL
    return _field(
        _SPAN_LINK,
        _LINK.pack(b"\x0a\x10", bytes.fromhex(trace_id), b"\x12\x08", bytes.fromhex(span_id), 0x35, flags),
    )


def _field(number: int, data: bytes) -> bytes:
    """A field of the wire type "length-delimited"; its number is below 16."""
    size = len(data)
    if size < 0x80:
        return bytes((number << 3 | 2, size)) + data
    return bytes((number << 3 | 2,)) + _varint(size) + data


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last have the eighth."""
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
