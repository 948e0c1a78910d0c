"""Spans as OTLP JSON lines (OpenTelemetry protocol, "JSON Protobuf Encoding"; file exporter specification).

The SDK's exporter makes an object for each field of each span, then dictionaries of them, then text: 60 µs for a
span. Here what all spans of a shape have in common is text already, and a span of an event is that text with its
own put in, those of a batch in one pass over columns: the text is cut where a span has its own, and all pieces are
joined. It says the same, field by field.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status

from shared.telemetry.files import RotatingLines
from shared.telemetry.tracing.event_spans import OUTCOME, EventSpan, LinkTo, Shape
from shared.telemetry.tracing.span_batches import Ended, SpanBatch

_KINDS = {
    SpanKind.INTERNAL: 1,
    SpanKind.SERVER: 2,
    SpanKind.CLIENT: 3,
    SpanKind.PRODUCER: 4,
    SpanKind.CONSUMER: 5,
}
_LOCAL, _REMOTE = 0x100, 0x300
"""Flags of a span and of a link: it is known whether the other one is another process's, and whether it is."""


class SpanLines(SpanExporter):
    """Appends a line for each batch of spans to files that do not grow without end."""

    def __init__(self, lines: RotatingLines) -> None:
        self._lines = lines

    def export(self, spans: Sequence[Ended]) -> SpanExportResult:
        """Write them; what cannot be written is dropped, and the log says so."""
        written = self._lines.write(line_of(spans))
        return SpanExportResult.SUCCESS if written else SpanExportResult.FAILURE


def line_of(spans: Iterable[Ended]) -> str:
    """One line with these spans, by what they come from."""
    groups: dict[tuple[int, int], list[str]] = {}
    heads: dict[tuple[int, int], tuple[Resource, InstrumentationScope | None]] = {}
    links: tuple[LinkTo, ...] = ()
    links_text = ""
    scope: InstrumentationScope | None
    for span in spans:
        if isinstance(span, SpanBatch):
            resource, scope = span.origin
            pieces = _of_batch(span)
        elif isinstance(span, EventSpan) and span.more is None:
            if span.links is not links:  # all of a batch have the same
                links, links_text = span.links, _links(span.links)
            resource, scope = span.origin
            pieces = [",", _of_event(span, links_text)]
        else:
            whole = span.readable() if isinstance(span, EventSpan) else span
            resource, scope = whole.resource, whole.instrumentation_scope
            pieces = [",", _to_json(_of_any(whole))]
        key = (id(resource), id(scope))
        if key not in groups:
            groups[key], heads[key] = [], (resource, scope)
        groups[key].extend(pieces)
    line = ['{"resourceSpans":[']
    for key, texts in groups.items():
        before, behind = _around(*heads[key])
        texts[0] = texts[0][1:]  # the comma
        line += ("," if len(line) > 1 else "", before, *texts, behind)
    line.append("]}\n")
    return "".join(line)


@lru_cache(maxsize=64)
def _around(resource: Resource, scope: InstrumentationScope | None) -> tuple[str, str]:
    """What stands before and behind the spans of this origin."""
    told: dict[str, Any] = {}
    if scope is not None:
        told = {"name": scope.name, "version": scope.version, "attributes": _attributes(scope.attributes)}
    resource_text, scope_text = (
        _to_json(_present(each)) for each in ({"attributes": _attributes(resource.attributes)}, told)
    )
    before = f'{{"resource":{resource_text},"scopeSpans":[{{"scope":{scope_text},"spans":['
    scope_schema = f',"schemaUrl":{quoted(scope.schema_url)}' if scope is not None and scope.schema_url else ""
    schema = f',"schemaUrl":{quoted(resource.schema_url)}' if resource.schema_url else ""
    return before, f"]{scope_schema}}}]{schema}}}"


# -- spans of events


def _of_event(span: EventSpan, links: str) -> str:
    """The text of a span that has nothing but its shape and its texts."""
    parent = ""
    flags = _REMOTE if span.remote else _LOCAL
    if span.parent_id:
        parent = f'"parentSpanId":"{span.parent_id}",'
    if span.state:
        parent += f'"traceState":{quoted(_state(span.state))},'
    outcome = "" if span.outcome is None else _outcome(span.outcome)
    shape, values = span.shape, span.values
    texts = _texts(values) if shape.counted is None else (*_texts(values[:-1]), values[-1])
    return _template(shape) % (
        span.trace_id,
        span.span_id,
        parent,
        flags,
        span.start_ns,
        span.end_ns,
        *texts,
        outcome,
        links,
    )


def _of_batch(batch: SpanBatch) -> list[str]:
    """The pieces of its spans' texts, one after the other, the first with a comma."""
    own: list[Sequence[str]] = []

    def told(column: Sequence[Any], texts: _Texts) -> str:
        """What stands in the text for a column: where all spans have the same, that."""
        if column[0] == column[-1] and column.count(column[0]) == len(column):
            return texts(column[:1])[0]
        own.append(texts(column))
        return _CUT

    parents, outcomes = batch.parents, batch.outcomes
    kinds: list[_Texts] = [_texts] * len(batch.columns)
    if batch.shape.counted is not None:
        kinds[-1] = _numbers
    text = _template(batch.shape) % (
        told([parent[3:35] for parent in parents], tuple),
        told(batch.span_ids, tuple),
        f'"parentSpanId":"{told([parent[36:52] for parent in parents], tuple)}",',
        _REMOTE,
        told(batch.starts_ns, _numbers),
        batch.end_ns,
        *map(told, batch.columns, kinds),
        "" if outcomes is None else told(outcomes, _outcomes),
        _links(batch.links),
    )
    common = f",{text}".split(_CUT)
    length = len(common) + len(own)
    pieces = [""] * length
    pieces[::2] = common
    pieces *= len(batch)
    for number, column in enumerate(own):
        pieces[2 * number + 1 :: length] = column
    return pieces


_Texts = Callable[[Sequence[Any]], Sequence[str]]
_CUT = "\0"
"""Where a span has its own text: no text that is quoted has this character."""


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    """In quotes; of a value that is no text, its text."""
    try:
        return (*map(quoted, values),)
    except TypeError:
        return tuple(quoted(str(value)) for value in values)


@lru_cache(maxsize=1_024)
def _template(shape: Shape) -> str:
    """For `%`: trace, span, parent, flags, begin, end, the values, the outcome and the links."""
    fixed = [_to_json(each).replace("%", "%%") for each in _attributes(shape.fixed)]
    varying = [f'{{"key":{_constant(key)},"value":{{"stringValue":%s}}}}' for key in shape.varying]
    if shape.counted is not None:
        varying.append(f'{{"key":{_constant(shape.counted)},"value":{{"intValue":"%s"}}}}')
    return (
        '{"traceId":"%s","spanId":"%s",%s"flags":%d,'
        f'"name":{_constant(shape.name)},"kind":{_KINDS[shape.kind]},'
        '"startTimeUnixNano":"%s","endTimeUnixNano":"%s",'
        f'"attributes":[{",".join(fixed + varying)}%s],'
        '%s"status":{}}'
    )


def _constant(text: str) -> str:
    return quoted(text).replace("%", "%%")


def _numbers(numbers: Sequence[int]) -> tuple[str, ...]:
    return (*map(str, numbers),)


def _outcomes(outcomes: Sequence[str]) -> tuple[str, ...]:
    return (*map(_outcome, outcomes),)


@lru_cache(maxsize=64)
def _outcome(outcome: str) -> str:
    return f',{{"key":"{OUTCOME}","value":{{"stringValue":{quoted(outcome)}}}}}'


def _links(links: tuple[LinkTo, ...]) -> str:
    texts = [
        f'{{"traceId":"{trace_id}","spanId":"{span_id}","flags":{_REMOTE if remote else _LOCAL}}}'
        for trace_id, span_id, remote in links
    ]
    return f'"links":[{",".join(texts)}],' if texts else ""


# -- any span


def _to_json(document: Mapping[str, Any]) -> str:
    """In ASCII: whatever a text holds, the line can be written."""
    return json.dumps(document, separators=(",", ":"))


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """As Protobuf's JSON has it, what is empty or zero is not there."""
    return {name: value for name, value in fields.items() if value}


def _of_any(span: ReadableSpan) -> dict[str, Any]:
    context, parent = span.context, span.parent
    return _present(
        {
            "traceId": f"{context.trace_id:032x}",
            "spanId": f"{context.span_id:016x}",
            "traceState": _state(context.trace_state),
            "parentSpanId": f"{parent.span_id:016x}" if parent else "",
            "flags": _flags(parent),
            "name": span.name,
            "kind": _KINDS[span.kind],
            "startTimeUnixNano": str(span.start_time or ""),
            "endTimeUnixNano": str(span.end_time or ""),
            "attributes": _attributes(span.attributes),
            "droppedAttributesCount": span.dropped_attributes,
            "events": [
                _present(
                    {
                        "timeUnixNano": str(event.timestamp or ""),
                        "name": event.name,
                        "attributes": _attributes(event.attributes),
                        "droppedAttributesCount": event.dropped_attributes,
                    }
                )
                for event in span.events
            ],
            "droppedEventsCount": span.dropped_events,
            "links": [
                _present(
                    {
                        "traceId": f"{link.context.trace_id:032x}",
                        "spanId": f"{link.context.span_id:016x}",
                        "attributes": _attributes(link.attributes),
                        "droppedAttributesCount": link.dropped_attributes,
                        "flags": _flags(link.context),
                    }
                )
                for link in span.links
            ],
            "droppedLinksCount": span.dropped_links,
        }
    ) | {"status": _status(span.status)}


def _state(state: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in (state or {}).items())


def _flags(other: SpanContext | None) -> int:
    return _REMOTE if other is not None and other.is_remote else _LOCAL


def _status(status: Status) -> dict[str, Any]:
    return _present({"message": status.description, "code": status.status_code.value})


def _attributes(attributes: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in (attributes or {}).items()]


def _value(value: Any) -> dict[str, Any]:
    """An `AnyValue`. Raises `TypeError` for what is none; the SDK has let no such value in."""
    if value is None:
        return {}
    for kind, name, in_json in _VALUES:
        if isinstance(value, kind):
            return {name: in_json(value)}
    raise TypeError(f"no attribute of a span: {type(value)}")


def _in_words(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


_VALUES: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (str, "stringValue", str),
    (bool, "boolValue", bool),  # before what else it is
    (int, "intValue", str),
    (float, "doubleValue", lambda value: value if math.isfinite(value) else _in_words(value)),
    (bytes, "bytesValue", lambda value: b64encode(value).decode()),
    (Mapping, "kvlistValue", lambda value: _present({"values": _attributes(value)})),
    (Sequence, "arrayValue", lambda value: _present({"values": [_value(each) for each in value]})),
)
