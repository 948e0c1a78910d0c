"""Begins spans of events, and hands those that have ended to whoever writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from random import getrandbits
from typing import TYPE_CHECKING

from opentelemetry import trace
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

_APART_MAX = 2
_TOGETHER_MAX = 512
"""Spans of one batch that are handed over at once: more are several batches."""


class Recorder:
    """Begins spans of events, where their trace is recorded, and hands over those that have ended.

    What is not recorded is a span of OpenTelemetry that hands its trace on. With `sampler` None, as where the SDK
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
            return NonRecordingSpan(SpanContext(trace_id, getrandbits(64) or 1, is_remote=False))
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
            return NonRecordingSpan(traceparent.context_of(parent))
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
            return NonRecordingSpan(context)
        trace_id, parent_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        place = (trace_id, parent_id, context.is_remote, context.trace_state or None)
        return EventSpan(self, shape, place, values, links)


def _default_limits() -> dict[str, int | None]:
    """Those of the specification, which every span of ours keeps to by itself."""
    return vars(SpanLimits(128, 128, 128, 128, 128, 128, SpanLimits.UNSET, SpanLimits.UNSET))


_DEFAULT_LIMITS = _default_limits()


def traceparent_of(span: Span) -> str | None:
    """What an event carries that is made in this span; None in none."""
    return span.traceparent if isinstance(span, EventSpan) else traceparent.write(span.get_span_context())


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
