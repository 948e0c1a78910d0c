"""Begins spans of events, and hands those that have ended to whoever writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from random import getrandbits
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext

from shared.telemetry.conventions import SCHEMA_URL, SCOPE
from shared.telemetry.tracing import traceparent
from shared.telemetry.tracing.event_spans import EventSpan, LinkTo, Place, Shape, Values
from shared.telemetry.tracing.traceparent import NOT_SAMPLED, Parent

if TYPE_CHECKING:
    from shared.telemetry.tracing.span_batches import SpanBatch

_RUNNING = next(iter(trace.set_span_in_context(INVALID_SPAN, Context())))
"""Where OpenTelemetry's context has the running span."""
_APART_MAX = 2
_TOGETHER_MAX = 512
"""Spans of one batch that are handed over at once: more are several batches."""


class UnrecordedSpan(NonRecordingSpan):
    """A span of a trace that is not recorded. What it hands on is always the same, and is put in words once."""

    _traceparent: str | None = None

    @property
    def traceparent(self) -> str | None:
        """What an event carries that is made in it."""
        if self._traceparent is None:
            self._traceparent = traceparent.write(self.get_span_context())
        return self._traceparent


class Recorder:
    """Begins spans of events, where their trace is recorded, and hands over those that have ended.

    What is not recorded is an `UnrecordedSpan`, which hands its trace on. With `sampler` None, as where the SDK
    is switched off, nothing is recorded and no trace begins.
    """

    def __init__(
        self,
        sampler: TraceIdRatioBased | None,
        keep: Iterable[Callable[[EventSpan | SpanBatch], object]] = (),
        resource: Resource | None = None,
        limits: SpanLimits | None = None,
    ) -> None:
        self._sampler = sampler
        self.keep = tuple(keep)
        self.origin = (resource or Resource.get_empty(), InstrumentationScope(SCOPE, "", SCHEMA_URL))
        self.limits = limits or SpanLimits()
        self.limited = vars(self.limits) != _DEFAULT_LIMITS
        """Whether the environment says limits that a span of ours, as it is, might not keep to."""

    def takes_together(self, count: int) -> bool:
        """Whether so many spans of a batch need not be objects: of few, columns cost more."""
        return count > _APART_MAX and self._sampler is not None and not self.limited

    def keep_batch(self, batch: SpanBatch) -> None:
        """Hand over spans that have ended together."""
        for part in batch.parts(_TOGETHER_MAX):
            for keep in self.keep:
                keep(part)

    def root(
        self,
        shape: Shape,
        values: Values = (),
        links: tuple[LinkTo, ...] = (),
        start_ns: int | None = None,
    ) -> Span:
        """The first span of a new trace."""
        if self._sampler is None:
            return INVALID_SPAN
        trace_id = getrandbits(128) or 1
        if trace_id & TraceIdRatioBased.TRACE_ID_LIMIT >= self._sampler.bound:
            return UnrecordedSpan(SpanContext(trace_id, getrandbits(64) or 1, is_remote=False))
        place = (f"{trace_id:032x}", "", False, None)
        return EventSpan(self, shape, place, values, links, start_ns=start_ns)

    def child_of(
        self,
        parent: traceparent.Fields,
        shape: Shape,
        values: Values = (),
        links: tuple[LinkTo, ...] = (),
        start_ns: int | None = None,
    ) -> Span:
        """The child of another process's span."""
        if self._sampler is None or not traceparent.says_sampled(parent):
            return UnrecordedSpan(traceparent.context_of(parent))
        return EventSpan(self, shape, (parent[0], parent[1], True, None), values, links, start_ns=start_ns)

    def child(self, shape: Shape, values: Values = (), links: tuple[LinkTo, ...] = ()) -> Span:
        """The child of the running span; where none runs, the first of a new trace."""
        running = trace.get_current_span()
        if isinstance(running, EventSpan):
            place: Place = (running.trace_id, running.span_id, False, running.state)
            return EventSpan(self, shape, place, values, links)
        context = running.get_span_context()
        if not context.is_valid:
            return self.root(shape, values, links)
        if self._sampler is None or not context.trace_flags.sampled:
            return UnrecordedSpan(context)
        trace_id, parent_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        place = (trace_id, parent_id, context.is_remote, context.trace_state or None)
        return EventSpan(self, shape, place, values, links)


def _default_limits() -> dict[str, int | None]:
    """Those of the specification, which every span of ours keeps to by itself."""
    return vars(SpanLimits(128, 128, 128, 128, 128, 128, SpanLimits.UNSET, SpanLimits.UNSET))


_DEFAULT_LIMITS = _default_limits()


def unrecorded_span() -> UnrecordedSpan | None:
    """The running span, if it is one of a trace that is not recorded: as of nearly every request.

    `trace.get_current_span` asks besides, in five calls more, whether it is a span at all.
    """
    running = otel_context.get_current().get(_RUNNING)
    return running if type(running) is UnrecordedSpan else None


def traceparent_of(span: Span) -> str | None:
    """What an event carries that is made in this span; None in none."""
    if type(span) is UnrecordedSpan or isinstance(span, EventSpan):
        return span.traceparent
    return traceparent.write(span.get_span_context())


def as_links(traceparents: Iterable[str | None], count_max: int) -> tuple[LinkTo, ...]:
    """Links to the spans of those of them that are recorded, the first `count_max`."""
    links: list[LinkTo] = []
    for each in traceparents:
        fields = traceparent.read(each)
        if fields is not None and traceparent.says_sampled(fields):
            links.append((fields[0], fields[1], True))
            if len(links) == count_max:
                break
    return tuple(links)


def links_to_parents(parents: Iterable[Parent], count_max: int) -> tuple[LinkTo, ...]:
    """Links to those of them that are, the first `count_max`."""
    recorded = (parent for parent in parents if parent is not None and parent is not NOT_SAMPLED)
    return tuple([(parent[3:35], parent[36:52], True) for parent in islice(recorded, count_max)])


def links_to(span: Span) -> tuple[LinkTo, ...]:
    """A link to this span; none to none."""
    if isinstance(span, EventSpan):
        return span.as_link
    context = span.get_span_context()
    if not context.is_valid:
        return ()
    return ((f"{context.trace_id:032x}", f"{context.span_id:016x}", context.is_remote),)
