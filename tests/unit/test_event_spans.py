"""Spans of events say what the SDK's say, field by field, whatever is asked of them, within the same limits."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from shared.telemetry.tracing.event_spans import EventSpan, Shape
from shared.telemetry.tracing.recorder import Recorder
from shared.telemetry.tracing.span_batches import Ended, SpanBatch, readable
from shared.telemetry.tracing.span_lines import line_of
from shared.telemetry.tracing.span_messages import request_of

RESOURCE = Resource({"service.name": 'the "order" service', "process.pid": 7}, "https://schemas/1")
LARGEST = (1 << 64) - 1
texts = st.text(st.characters())
"""Lone surrogates among them."""
in_utf_8 = st.text(st.characters(exclude_categories=["Cs"]))
ids = st.tuples(st.integers(1, (1 << 128) - 1), st.integers(1, LARGEST)).map(
    lambda pair: (f"{pair[0]:032x}", f"{pair[1]:016x}")
)
states = st.none() | st.just(TraceState([("vendor", "some=thing"), ("other", "1")]))
RECORDER = Recorder(TraceIdRatioBased(1.0), (), RESOURCE)


@st.composite
def event_spans(draw: st.DrawFn, texts: st.SearchStrategy[str] = texts) -> Callable[[], EventSpan]:
    """How to make one."""
    shape = Shape(
        name=draw(texts.filter(bool)),
        kind=draw(st.sampled_from(SpanKind)),
        fixed=draw(st.dictionaries(texts.filter(bool), texts, min_size=1)),
        varying=("a.first", "%s", 'a "third"'),
        counted=draw(st.none() | st.just("how many")),
    )
    trace_id, parent_id = draw(ids)
    parent = draw(st.sampled_from(["", parent_id]))
    values: tuple[Any, ...] = tuple(draw(st.lists(texts, min_size=3, max_size=3)))
    if shape.counted is not None:
        values += (draw(st.integers(0, 1 << 40)),)
    links = tuple((*draw(ids), draw(st.booleans())) for _ in range(draw(st.integers(0, 3))))
    place = (trace_id, parent, draw(st.booleans()) and parent != "", draw(states))
    outcome = draw(st.none() | st.sampled_from(["done", "dead_lettered"]))
    error = draw(st.none() | st.builds(LookupError, texts))

    def make() -> EventSpan:
        span = EventSpan(RECORDER, shape, place, values, links)
        if outcome is not None:
            span.conclude(outcome)
        if error is not None:
            span.fail(error)
        span.end()
        return span

    return make


@st.composite
def batches(draw: st.DrawFn, texts: st.SearchStrategy[str] = texts) -> SpanBatch:
    """Some with what all of its spans have the same, some without."""
    count = draw(st.integers(1, 4))

    def some(each: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(each, min_size=count, max_size=count) | each.map(lambda one: [one] * count))

    counted = draw(st.none() | st.just("how many"))
    columns = [some(texts), some(texts), *([some(st.integers(0, 1 << 40))] if counted else [])]
    return SpanBatch(
        recorder=RECORDER,
        shape=Shape(
            name=draw(texts.filter(bool)),
            kind=draw(st.sampled_from(SpanKind)),
            fixed=draw(st.dictionaries(texts.filter(bool), texts, max_size=2)),
            varying=("a.first", 'a "%s"'),
            counted=counted,
        ),
        parents=some(ids.map(lambda pair: f"00-{pair[0]}-{pair[1]}-01")),
        columns=columns,
        span_ids=draw(st.lists(ids.map(lambda pair: pair[1]), min_size=count, max_size=count, unique=True)),
        links=tuple((*draw(ids), draw(st.booleans())) for _ in range(draw(st.integers(0, 2)))),
        starts_ns=some(st.integers(1, LARGEST)),
        end_ns=draw(st.integers(1, LARGEST)),
        outcomes=draw(st.none() | st.just(some(st.sampled_from(["done", "duplicate"])))),
    )


def as_the_sdk_writes(spans: list[ReadableSpan]) -> Any:
    written = io.StringIO()
    FileSpanExporter(stream=written).export(spans)
    return json.loads(written.getvalue())


@given(st.lists(event_spans() | batches(), min_size=1, max_size=4))
def test_a_line_says_what_the_line_of_the_sdk_says(making: list[Callable[[], EventSpan] | SpanBatch]) -> None:
    spans: list[Ended] = [make if isinstance(make, SpanBatch) else make() for make in making]
    assert json.loads(line_of(spans)) == as_the_sdk_writes(readable(spans))


def read(message: bytes) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    request.ParseFromString(message)
    return request


@given(st.lists(event_spans(in_utf_8) | batches(in_utf_8), min_size=1, max_size=4))
def test_a_message_says_what_that_of_the_sdk_says(making: list[Callable[[], EventSpan] | SpanBatch]) -> None:
    """Those that ask for more than a shape come first: the SDK encodes them."""
    spans: list[Ended] = [make if isinstance(make, SpanBatch) else make() for make in making]
    [written] = _merged(read(request_of(spans)))
    in_order = sorted(spans, key=lambda span: not isinstance(span, EventSpan) or span.more is None)
    [expected] = encode_spans(readable(in_order)).resource_spans
    assert written == expected


def _merged(request: ExportTraceServiceRequest) -> list[object]:
    """All have the same resource and scope, which may be there twice."""
    first, *others = request.resource_spans
    for other in others:
        assert (other.resource, other.schema_url) == (first.resource, first.schema_url)
        [scope] = other.scope_spans
        assert (scope.scope, scope.schema_url) == (first.scope_spans[0].scope, first.scope_spans[0].schema_url)
        first.scope_spans[0].spans.extend(scope.spans)
    return [first]


def test_a_long_text_and_one_that_utf_8_cannot_say_are_written() -> None:
    kept: list[Ended] = []
    recorder = Recorder(TraceIdRatioBased(1.0), [kept.append], RESOURCE)
    recorder.root(Shape("n", SpanKind.CONSUMER, {"a": "b"}, ("long", "odd")), ("x" * 70_000, "\ud800")).end()
    [resource] = read(request_of(kept)).resource_spans
    [span] = resource.scope_spans[0].spans
    told = {attribute.key: attribute.value.string_value for attribute in span.attributes}
    assert told == {"a": "b", "long": "x" * 70_000, "odd": "?"}


def test_a_value_that_is_no_text_costs_nobody_a_span() -> None:
    kept: list[Ended] = []
    recorder = Recorder(TraceIdRatioBased(1.0), [kept.append], RESOURCE)
    shape = Shape("n", SpanKind.CONSUMER, {"a": "b"}, ("subject",))
    for subject in ("7", UUID(int=7), None):
        recorder.root(shape, (subject,)).end()
    expected = ["7", str(UUID(int=7)), "None"]
    [scope] = json.loads(line_of(kept))["resourceSpans"][0]["scopeSpans"]
    assert [span["attributes"][1]["value"]["stringValue"] for span in scope["spans"]] == expected
    [resource] = read(request_of(kept)).resource_spans
    assert [span.attributes[1].value.string_value for span in resource.scope_spans[0].spans] == expected


values: st.SearchStrategy[Any] = st.deferred(
    lambda: st.none() | texts | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats() | st.binary()
    | st.lists(values, max_size=3) | st.dictionaries(texts.filter(bool), values, max_size=3)
)  # fmt: skip
attributes = st.dictionaries(texts.filter(bool), values, max_size=5)


@given(attributes, attributes)
def test_the_sdks_own_spans_are_written_as_the_sdk_writes_them(
    of_span: dict[str, Any], of_event: dict[str, Any]
) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("theirs", "1.2", "https://schemas/2", {"of the scope": 1})
    with suppress(LookupError), tracer.start_as_current_span("parent", attributes=of_span) as parent:
        parent.add_event("happened", of_event)
        tracer.start_span("child", links=[trace.Link(parent.get_span_context(), of_event)]).end()
        raise LookupError
    spans = list(kept.get_finished_spans())
    assert json.loads(line_of(spans)) == as_the_sdk_writes(spans)


LINK = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))
operations: st.SearchStrategy[Callable[[Span], object]] = st.one_of(
    st.builds(lambda k, v: lambda span: span.set_attribute(k, v), st.sampled_from("abc"), values),
    st.builds(lambda told: lambda span: span.set_attributes(told), attributes),
    st.builds(lambda name, told: lambda span: span.add_event(name, told, 5), texts, attributes),
    st.builds(lambda told: lambda span: span.add_link(LINK, told), attributes),
    st.just(lambda span: span.add_link(trace.INVALID_SPAN_CONTEXT)),
    st.builds(lambda name: lambda span: span.update_name(name), texts.filter(bool)),
    st.builds(lambda code, why: lambda span: span.set_status(code, why), st.sampled_from(StatusCode), texts),
    st.builds(lambda why: lambda span: span.set_status(Status(StatusCode.ERROR, why)), texts),
    st.builds(lambda why: lambda span: span.record_exception(LookupError(why), {"b": 1}, 6), texts),
    st.just(lambda span: span.end(9)),
)
limits = st.just(SpanLimits()) | st.builds(
    SpanLimits, *(st.integers(0, 4) for _ in range(6)), st.integers(0, 3), st.integers(0, 3)
)


@given(st.lists(operations, max_size=6), limits)
def test_whatever_is_asked_of_one_is_done_as_the_sdk_does_it(
    todo: list[Callable[[Span], object]], limits: SpanLimits
) -> None:
    kept, ours = InMemorySpanExporter(), list[Ended]()
    provider = TracerProvider(resource=RESOURCE, span_limits=limits)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    parent = trace.set_span_in_context(NonRecordingSpan(LINK))
    fixed = {"a": "1", "b": "22"}
    their = provider.get_tracer("tandem").start_span(
        "span", parent, SpanKind.CONSUMER, fixed | {"c": "333", "n": 4444}, [trace.Link(LINK)], 3
    )
    recorder = Recorder(TraceIdRatioBased(1.0), [ours.append], RESOURCE, limits)
    remote = (f"{1:032x}", f"{2:016x}", "01")
    shape = Shape("span", SpanKind.CONSUMER, fixed, ("c",), "n")
    our = recorder.child_of(remote, shape, ("333", 4444), ((*remote[:2], True),), 3)
    late: list[Callable[[Span], object]] = [
        lambda span: span.end(9),
        lambda span: span.set_attribute("late", 1),
    ]
    for each in todo + late:
        assert their.is_recording() == our.is_recording()
        each(their)
        each(our)
    assert len(ours) == len(kept.get_finished_spans()) == 1
    assert told(list(kept.get_finished_spans())) == told(ours)


def told(spans: list[ReadableSpan] | list[Ended]) -> dict[str, Any]:
    """The only one of these spans without what is its own."""
    [resource] = json.loads(line_of(spans))["resourceSpans"]
    [span] = resource["scopeSpans"][0]["spans"]
    for event in span.get("events", ()):
        for row in event.get("attributes", ()):
            if row["key"] == "exception.stacktrace":
                row["value"] = {}
    return {name: value for name, value in span.items() if name != "spanId"}
