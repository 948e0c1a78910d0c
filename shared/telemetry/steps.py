"""Spans of leased steps: in the trace of their job, and so of the request that submitted it.

An inline step is the `process` span of its announcement; a leased one is run by a worker, which no event reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, Status, StatusCode, Tracer

from shared.telemetry.tracing import traceparent


class Attempted:
    """An attempt that runs, to be told how it ended; without a span where its trace is not sampled."""

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def end(self, outcome: str, error_type: str | None) -> None:
        """Say how it ended; an error is named by its type alone."""
        if self._span is None:
            return
        self._span.set_attribute("tandem.status", outcome)
        if error_type is not None:
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(Status(StatusCode.ERROR, error_type))


class StepSpans:
    """Starts one worker's spans of steps."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def attempt(
        self, handler: str, attributes: Mapping[str, str | int], parent: str | None
    ) -> Iterator[Attempted]:
        """The span of one attempt; `parent` is its job's traceparent."""
        within = traceparent.remote_span(parent)
        if within is None or not within.trace_flags.sampled:
            yield Attempted(None)
            return
        context = trace.set_span_in_context(NonRecordingSpan(within), otel_context.Context())
        told = {"tandem.job.handler": handler, **attributes}
        with self._tracer.start_as_current_span(f"run {handler}", context, SpanKind.CONSUMER, told) as span:
            yield Attempted(span)
