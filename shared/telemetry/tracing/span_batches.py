"""Spans of a batch's events: columns that are recorded, written and sent at once, and no objects.

Of a batch of 500, whose spans have the same links and end together, nearly every handler leaves its span alone. So
one is an object that says where it stands, until somebody looks at it: then it is a span as any other and goes its
own way. That, and text made for a whole batch in one pass, cost half of what 500 spans did (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from random import getrandbits
from threading import RLock
from time import time_ns
from typing import Any, TypedDict

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Span, StatusCode

from shared.telemetry.tracing import traceparent
from shared.telemetry.tracing.event_spans import EventSpan, LinkTo, Place, Shape, Values
from shared.telemetry.tracing.recorder import Recorder
from shared.telemetry.tracing.traceparent import NOT_SAMPLED, Parent

_ID_BYTES = 8
[_RUNNING] = trace.set_span_in_context(trace.INVALID_SPAN, otel_context.Context())
"""Under what a context has its running span."""
_looking = RLock()
"""Held while a span becomes one as any other: a handler may have threads, and what is collected then may log."""


@dataclass(frozen=True, slots=True, eq=False)
class SpanBatch:
    """Spans that have ended together, each the child of another process's; an id and a time for each."""

    recorder: Recorder
    shape: Shape
    parents: Sequence[str]
    """Traceparents of version 00."""
    columns: Sequence[Sequence[Any]]
    """Of each attribute that they have values of their own for, these; as in `Values`, the counted one last."""
    span_ids: Sequence[str]
    links: tuple[LinkTo, ...]
    """What each of them has."""
    starts_ns: Sequence[int]
    end_ns: int
    outcomes: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.parents)

    @property
    def origin(self) -> tuple[Resource, InstrumentationScope]:
        """What they come from."""
        return self.recorder.origin

    def parts(self, length_max: int) -> Iterator[SpanBatch]:
        """The same spans in batches of no more than that."""
        if len(self) <= length_max:
            yield self
            return
        for start in range(0, len(self), length_max):
            part = slice(start, start + length_max)
            outcomes = None if self.outcomes is None else self.outcomes[part]
            yield SpanBatch(
                self.recorder, self.shape, self.parents[part], [column[part] for column in self.columns],
                self.span_ids[part], self.links, self.starts_ns[part], self.end_ns, outcomes,
            )  # fmt: skip

    def rows(self) -> Iterable[Values]:
        """The values of each of them."""
        return zip(*self.columns, strict=True) if self.columns else repeat((), len(self))

    def spans(self) -> list[EventSpan]:
        """Each of them as an object."""
        spans = []
        for number, (parent, values) in enumerate(zip(self.parents, self.rows(), strict=True)):
            span = EventSpan(
                self.recorder, self.shape, _below(parent), values, self.links,
                start_ns=self.starts_ns[number], span_id=self.span_ids[number],
            )  # fmt: skip
            if self.outcomes is not None:
                span.conclude(self.outcomes[number])
            span.end_ns = self.end_ns  # it is kept already
            spans.append(span)
        return spans


Ended = ReadableSpan | EventSpan | SpanBatch


def readable(spans: Iterable[Ended]) -> list[ReadableSpan]:
    """All of them as the SDK has them."""
    each = chain.from_iterable(span.spans() if isinstance(span, SpanBatch) else (span,) for span in spans)
    return [span.readable() if isinstance(span, EventSpan) else span for span in each]


class BatchInHand:
    """The spans of a batch while its events are handled, one after the other: numbers, as they came."""

    __slots__ = (
        "_apart",
        "_begun_ns",
        "_besides",
        "_columns",
        "_context",
        "_end_ns",
        "_links",
        "_parents",
        "_recorder",
        "_shape",
        "_span_ids",
        "_together",
    )

    def __init__(
        self,
        recorder: Recorder,
        shape: Shape,
        parents: Sequence[Parent],
        columns: Sequence[Sequence[Any]],
        links: tuple[LinkTo, ...],
    ) -> None:
        self._recorder = recorder
        self._shape = shape
        self._parents = parents
        self._columns = columns
        self._links = links
        self._together = recorder.takes_together(len(parents))
        self._context = otel_context.get_current()
        self._besides = {key: value for key, value in self._context.items() if key != _RUNNING}
        self._span_ids = span_ids(len(parents)) if self._together else ()
        self._begun_ns = [0] * len(parents)
        """By number, of those that are numbers; 0 of one that is not, or that was not begun."""
        self._apart: dict[int, Span] = {}
        """Those that are spans as any other: looked at, first of their trace, one of few, or with limits."""
        self._end_ns: int | None = None

    def begin(self, number: int) -> None:
        """Begin the span of this event and make it the running one, in place of the one before; where the event
        is not sampled, what ran before them all."""
        parent = self._parents[number]
        if parent is NOT_SAMPLED:
            otel_context.attach(self._context)
            return
        span: Span
        if parent is None:
            span = self._apart[number] = self._recorder.root(self._shape, self._values(number), self._links)
        elif self._together:
            self._begun_ns[number] = time_ns()
            span = _UnseenSpan(self, number)
        else:
            fields = traceparent.fields_of(parent)
            span = self._recorder.child_of(fields, self._shape, self._values(number), self._links)
            self._apart[number] = span
        otel_context.attach(otel_context.Context({_RUNNING: span, **self._besides}))

    def rest(self) -> None:
        """No event is being handled: what ran before them is the running span again."""
        otel_context.attach(self._context)

    def tell_of(self, error: Exception) -> None:
        """Say on an event's own span what was raised, and where: it comes alone, and has no batch that says so."""
        for span in self._apart.values():
            span.record_exception(error)

    def end(self, outcomes: Sequence[str], errors: Mapping[int, BaseException]) -> None:
        """End all that were begun, at the same moment; both by the events' numbers. An error is named by its type
        and sentence, never by the payload."""
        for number in errors:
            if self._begun_ns[number] and number not in self._apart:
                self._apart[number] = EventSpan(*self._told(number), **self._own(number))
        with _looking:
            end_ns = self._end_ns = time_ns()
        for number, span in self._apart.items():
            end_apart(span, str(outcomes[number]), errors.get(number), end_ns)
        begun_ns = self._begun_ns
        every = not self._apart and all(begun_ns)  # nearly always
        each = range(len(begun_ns))
        numbers = each if every else [at for at in each if begun_ns[at] and at not in self._apart]
        if numbers:

            def those_of(column: Sequence[Any]) -> Sequence[Any]:
                return column if every else [column[number] for number in numbers]

            self._recorder.keep_batch(
                SpanBatch(
                    recorder=self._recorder,
                    shape=self._shape,
                    parents=those_of(self._parents),
                    columns=[those_of(column) for column in self._columns],
                    span_ids=those_of(self._span_ids),
                    links=self._links,
                    starts_ns=those_of(begun_ns),
                    end_ns=end_ns,
                    outcomes=those_of(outcomes),
                )
            )

    def look_at(self, span: _UnseenSpan, number: int) -> None:
        """Have it be a span as any other."""
        EventSpan.__init__(span, *self._told(number), **self._own(number))
        if self._end_ns is None:
            self._apart[number] = span
        else:
            span.end_ns = self._end_ns

    def _told(self, number: int) -> tuple[Recorder, Shape, Place, Values, tuple[LinkTo, ...]]:
        place = _below(self._parents[number] or "")
        return self._recorder, self._shape, place, self._values(number), self._links

    def _values(self, number: int) -> Values:
        return tuple([column[number] for column in self._columns])

    def _own(self, number: int) -> _Own:
        return {"start_ns": self._begun_ns[number], "span_id": self._span_ids[number]}


class _UnseenSpan(EventSpan):
    """One of a batch's, which only knows its number until something else is asked of it."""

    __slots__ = ("_batch", "_number")

    def __init__(self, batch: BatchInHand, number: int) -> None:
        self._batch: BatchInHand | None = batch
        self._number = number

    def __getattr__(self, name: str) -> Any:
        """What a span has, where it is not there yet."""
        if name not in EventSpan.__slots__:
            raise AttributeError(name)
        with _looking:
            if self._batch is not None:
                self._batch.look_at(self, self._number)
                self._batch = None
        return object.__getattribute__(self, name)


class _Own(TypedDict):
    start_ns: int
    span_id: str


def _below(parent: str) -> Place:
    trace_id, parent_id, _ = traceparent.fields_of(parent)
    return trace_id, parent_id, True, None


def span_ids(count: int) -> list[str]:
    """So many new ones, in hexadecimal."""
    return getrandbits(8 * _ID_BYTES * count).to_bytes(_ID_BYTES * count).hex(" ", _ID_BYTES).split()


def end_apart(span: Span, outcome: str, error: BaseException | None, end_ns: int) -> None:
    """End a span by itself."""
    if isinstance(span, EventSpan):
        span.conclude(outcome)
    if error is not None:
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(StatusCode.ERROR, str(error).partition("\n")[0][:200])
    span.end(end_ns)
