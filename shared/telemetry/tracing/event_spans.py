"""Spans along an event's way: each holds what it adds to what all of its kind have in common, and nothing else.

Every event has some, so they are what tracing costs. A span of the SDK has three locks and two bounded
dictionaries, checks each attribute and is copied when it ends; these are a few texts until they are written. Asked
for more than that (an attribute, an event, a status), one of these has the same as the SDK's, and the same limits.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from random import getrandbits
from threading import RLock
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.util.types import AnyValue, Attributes

if TYPE_CHECKING:
    from shared.telemetry.tracing.recorder import Recorder

OUTCOME = "tandem.status"
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status()
_unfolding = RLock()
"""Held while a span gets what its shape does not say: a handler may have threads."""

Values = tuple[Any, ...]
"""Texts, and a number behind them where the shape counts something."""
Place = tuple[str, str, bool, TraceState | None]
"""The trace's id, and of the parent the id ("" for none), whether it is another process's, and its trace state."""
LinkTo = tuple[str, str, bool]
"""Trace id and span id in hexadecimal, and whether the span is another process's."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What all spans of one operation have in common.

    `varying` are attributes that each span has its own text for, and `counted` one for which it has a number, the
    last of its values.
    """

    name: str
    kind: SpanKind
    fixed: Mapping[str, str | int]
    varying: tuple[str, ...] = ()
    counted: str | None = None


@dataclass(slots=True)
class More:
    """What a span has that its shape and texts do not say."""

    name: str
    attributes: BoundedAttributes
    events: BoundedList  # type: ignore[type-arg]  # the SDK has none
    links: list[Link]
    status: Status = _UNSET


class EventSpan(Span):
    """A recorded span; begun by a `Recorder`, which is handed it when it has ended."""

    __slots__ = (
        "_as_link",
        "_recorder",
        "end_ns",
        "links",
        "more",
        "outcome",
        "parent_id",
        "remote",
        "shape",
        "span_id",
        "start_ns",
        "state",
        "trace_id",
        "values",
    )

    def __init__(
        self,
        recorder: Recorder,
        shape: Shape,
        place: Place,
        values: Values,
        links: tuple[LinkTo, ...],
        *,
        start_ns: int | None = None,
        span_id: str | None = None,
    ) -> None:
        """It starts now, with a new id, unless said."""
        self._recorder = recorder
        self.shape = shape
        self.trace_id, self.parent_id, self.remote, self.state = place
        self.span_id = span_id or f"{(getrandbits(64) or 1):016x}"
        self.values = values
        self.links = links
        self.start_ns = time_ns() if start_ns is None else start_ns
        self.end_ns: int | None = None
        self.outcome: str | None = None
        self._as_link: tuple[LinkTo, ...] | None = None
        self.more: More | None = self._unfolded() if recorder.limited else None

    @property
    def traceparent(self) -> str:
        """What an event carries that was made in it."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    @property
    def as_link(self) -> tuple[LinkTo, ...]:
        """The links of another span that has one to this one; the same object for all of them."""
        if self._as_link is None:
            self._as_link = ((self.trace_id, self.span_id, False),)
        return self._as_link

    @property
    def origin(self) -> tuple[Resource, InstrumentationScope]:
        """What it comes from."""
        return self._recorder.origin

    def become(self, shape: Shape, values: Values) -> None:
        """Be of another shape, where what an operation is becomes known on its way; its kind stays."""
        before, self.shape, self.values = self.shape, shape, values
        if self.more is not None:
            if self.more.name == before.name:
                self.update_name(shape.name)
            self.set_attributes(self._told())

    def conclude(self, outcome: str) -> None:
        """Set the attribute `OUTCOME`."""
        if self.more is None:
            self.outcome = outcome
        else:
            self.set_attribute(OUTCOME, outcome)

    def fail(self, error: BaseException) -> None:
        """What a span has that an exception went through."""
        self.record_exception(error)
        self.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")

    def readable(self) -> ReadableSpan:
        """The same as the SDK has it, and exporters read it."""
        more = self.more or self._unfolded()
        resource, scope = self.origin
        return ReadableSpan(
            name=more.name,
            context=self.get_span_context(),
            parent=self._parent(),
            resource=resource,
            attributes=more.attributes,
            events=more.events,
            links=BoundedList.from_seq(self._recorder.limits.max_links, more.links),
            kind=self.shape.kind,
            status=more.status,
            start_time=self.start_ns,
            end_time=self.end_ns,
            instrumentation_scope=scope,
        )

    def _parent(self) -> SpanContext | None:
        if not self.parent_id:
            return None
        return SpanContext(int(self.trace_id, 16), int(self.parent_id, 16), self.remote, _SAMPLED, self.state)

    def _told(self) -> dict[str, AnyValue]:
        shape = self.shape
        names = shape.varying if shape.counted is None else (*shape.varying, shape.counted)
        return {**shape.fixed, **dict(zip(names, self.values, strict=True))}

    def _unfolded(self) -> More:
        limits = self._recorder.limits
        attributes = self._told()
        if self.outcome is not None:
            attributes[OUTCOME] = self.outcome
        bounded = BoundedAttributes(
            limits.max_span_attributes,
            attributes,
            immutable=False,
            max_value_len=limits.max_span_attribute_length,
        )
        return More(self.shape.name, bounded, BoundedList(limits.max_events), [*map(_linked, self.links)])

    def _own(self) -> More | None:
        """What may be added to; None when it has ended."""
        if self.end_ns is not None:
            return None
        with _unfolding:
            self.more = self.more or self._unfolded()
        return self.more

    def _bounded(self, attributes: Attributes, count_max: int | None) -> BoundedAttributes:
        length_max = self._recorder.limits.max_attribute_length
        return BoundedAttributes(count_max, attributes, max_value_len=length_max)

    # -- what a span of OpenTelemetry is

    def end(self, end_time: int | None = None) -> None:
        """End it, now unless said; only the first call counts."""
        if self.end_ns is None:
            self.end_ns = time_ns() if end_time is None else end_time
            for keep in self._recorder.keep:
                keep(self)

    def get_span_context(self) -> SpanContext:
        """What its children and log lines are told."""
        return SpanContext(int(self.trace_id, 16), int(self.span_id, 16), False, _SAMPLED, self.state)

    def is_recording(self) -> bool:
        """Whether it has not ended."""
        return self.end_ns is None

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        """Set several attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_attribute(self, key: str, value: AnyValue) -> None:
        """Set an attribute, or replace it."""
        if (more := self._own()) is not None:
            more.attributes[key] = value

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Add something that happens now, unless said when."""
        if (more := self._own()) is not None:
            more.events.append(
                Event(name, self._bounded(attributes, self._recorder.limits.max_event_attributes), timestamp)
            )

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Add a link to another span, if it is one."""
        if context is not None and context.is_valid and (more := self._own()) is not None:
            more.links.append(Link(context, self._bounded(attributes, self._recorder.limits.max_link_attributes)))

    def update_name(self, name: str) -> None:
        """Give it another name."""
        if (more := self._own()) is not None:
            more.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say whether it went well; nothing after "well" counts."""
        told = status if isinstance(status, Status) else Status(status, description)
        if told.status_code is StatusCode.UNSET or (more := self._own()) is None:
            return
        if more.status.status_code is not StatusCode.OK:
            more.status = told

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an event that says what was raised, and where."""
        self.add_event("exception", {**_raised(exception, escaped=escaped), **(attributes or {})}, timestamp)


def _linked(link: LinkTo) -> Link:
    trace_id, span_id, remote = link
    return Link(SpanContext(int(trace_id, 16), int(span_id, 16), remote, _SAMPLED))


def _raised(exception: BaseException, *, escaped: bool) -> dict[str, AnyValue]:
    """The attributes of an event "exception" (conventions for exceptions)."""
    module, name = type(exception).__module__, type(exception).__qualname__
    return {
        "exception.type": f"{module}.{name}" if module and module != "builtins" else name,
        "exception.message": str(exception),
        "exception.stacktrace": "".join(traceback.format_exception(exception)),
        "exception.escaped": str(escaped),
    }
