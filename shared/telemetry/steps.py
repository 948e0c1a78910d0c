"""Spans of leased steps: in the trace of their job, and so of the request that submitted it.

An inline step is the `process` span of its announcement; a leased one is run by a worker, which no event reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from shared.telemetry.tracing import EventSpan, Recorder, Shape, traceparent


class Attempted:
    """An attempt that runs, to be told how it ended; without a span where its trace is not sampled."""

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def end(self, outcome: str, error_type: str | None) -> None:
        """Say how it ended; an error is named by its type alone."""
        if not isinstance(self._span, EventSpan):
            return
        self._span.conclude(outcome)
        if error_type is not None:
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(StatusCode.ERROR, error_type)


@lru_cache(maxsize=1_024)
def _shape_of(handler: str, texts: tuple[str, ...]) -> Shape:
    fixed = {"tandem.job.handler": handler}
    return Shape(f"run {handler}", SpanKind.CONSUMER, fixed, texts, "tandem.job.attempt")


class StepSpans:
    """Starts one worker's spans of steps."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @contextmanager
    def attempt(
        self, handler: str, number: int, texts: Mapping[str, str], parent: str | None
    ) -> Iterator[Attempted]:
        """The span of a step's attempt of this number, with `texts` for attributes; `parent` is its job's
        traceparent."""
        within = traceparent.read(parent)
        if within is None or not traceparent.says_sampled(within):
            yield Attempted(None)
            return
        shape = _shape_of(handler, tuple(texts))
        span = self._recorder.child_of(within, shape, (*texts.values(), number))
        with trace.use_span(span, end_on_exit=True):
            yield Attempted(span)
