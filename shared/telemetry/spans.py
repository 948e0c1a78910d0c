"""Spans: one trace leads from the HTTP request to the last effect.

The request's span → `create` (its context is the event's `traceparent`) → `send` in the relay and `process` in
each subscriber. A batch of several has a span of its own, joined to its events' spans by links, since it belongs
to many traces at once. No payload enters a span. Events that are not sampled cost nothing: their spans are not
started.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Final, Self

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from uuid_utils import uuid7

from shared.broker import Subscription, destination_name
from shared.envelope import Envelope
from shared.settings import BrokerName
from shared.telemetry.conventions import destination_attributes, process_attributes
from shared.telemetry.tracing import (
    BatchInHand,
    EventSpan,
    Recorder,
    Shape,
    SpanBatch,
    as_links,
    links_to,
    links_to_parents,
    span_ids,
    traceparent_of,
    unrecorded_span,
)
from shared.telemetry.tracing import traceparent as trace_context
from shared.telemetry.tracing.traceparent import NOT_SAMPLED, is_sampled, parents_of

_LINKS_MAX = 128  # the SDK's own limit per span; the other spans of the batch still link to it
_EVENT: Final = ("messaging.message.id", "tandem.event.type", "tandem.event.subject")
_ASKED: Final = ("messaging.message.conversation_id", "tandem.event.type", "tandem.event.subject")
_COUNT: Final = "messaging.batch.message_count"


class Created:
    """A new event's id and the trace context that it carries, None when there is none; as a context manager, its
    span."""

    __slots__ = ("_span", "event_id", "traceparent")

    def __init__(self, event_id: str, traceparent: str | None, span: Span | None = None) -> None:
        self.event_id = event_id
        self.traceparent = traceparent
        self._span = span

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if self._span is not None:
            if isinstance(error, Exception) and isinstance(self._span, EventSpan):
                self._span.fail(error)
            self._span.end()


def current_trace_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the running span for a log line; empty outside a span."""
    span = trace.get_current_span()
    if isinstance(span, EventSpan):
        return {"trace_id": span.trace_id, "span_id": span.span_id}
    context = span.get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


@lru_cache(maxsize=1_024)
def _shape_of(
    broker: BrokerName, operation: str, channel: str, kind: SpanKind, varying: tuple[str, ...] = ()
) -> Shape:
    """Of one event that is created, sent, asked for or answered."""
    kinds = {"ask": "send", "receive": "receive", "create": "create", "send": "send"}
    name = "receive reply" if operation == "receive" else operation
    attributes = {
        **destination_attributes(broker, channel),
        "messaging.operation.name": operation,
        "messaging.operation.type": kinds[operation],
    }
    return Shape(f"{name} {destination_name(broker, channel)}", kind, attributes, varying)


@lru_cache(maxsize=1_024)
def _batch_of(shape: Shape) -> Shape:
    return Shape(f"{shape.name} batch", shape.kind, shape.fixed, counted=_COUNT)


class Spans:
    """Starts one process's spans of events and batches."""

    def __init__(self, recorder: Recorder, broker: BrokerName) -> None:
        self._recorder = recorder
        self._broker = broker
        self._processing: dict[tuple[str, str], tuple[Shape, Shape]] = {}

    def create(
        self,
        channel: str,
        event_type: str,
        subject: str,
        cause: str | None = None,
        *,
        link: str | None = None,
        parent: str | None = None,
    ) -> Created:
        """The PRODUCER span whose context the new event carries; `subject` makes it findable.

        It is the child of the running span, or of `parent`; where `cause` is not sampled, there is none. All
        three are traceparents.
        """
        event_id = str(uuid7())
        if cause is None and parent is None and (running := unrecorded_span()) is not None:  # nearly always
            return Created(event_id, running.traceparent)
        caused_in = trace_context.read(cause)
        if caused_in is not None and not trace_context.says_sampled(caused_in):
            return Created(event_id, f"00-{caused_in[0]}-{caused_in[1]}-00")
        shape = _shape_of(self._broker, "create", channel, SpanKind.PRODUCER, _EVENT)
        values = (event_id, event_type, subject)
        links = () if link is None else as_links([link], 1)
        within = trace_context.read(parent)
        if within is None:
            span = self._recorder.child(shape, values, links)
        else:
            span = self._recorder.child_of(within, shape, values, links)
        return Created(event_id, traceparent_of(span), span)

    @contextmanager
    def ask(self, channel: str, event_type: str, subject: str) -> Iterator[Created]:
        """The CLIENT span of a request, from its making until its answer; its context is the request's."""
        event_id = str(uuid7())
        shape = _shape_of(self._broker, "ask", channel, SpanKind.CLIENT, _ASKED)
        span = self._recorder.child(shape, (event_id, event_type, subject))
        with trace.use_span(span, end_on_exit=True):
            yield Created(event_id, traceparent_of(span))

    def answered(self, channel: str, request_id: str, traceparent: str | None) -> None:
        """The CONSUMER span of an answer that came, child of the span in which it was made."""
        parent = trace_context.read(traceparent)
        if parent is None or not trace_context.says_sampled(parent):
            return
        shape = _shape_of(self._broker, "receive", channel, SpanKind.CONSUMER, _ASKED[:1])
        links = links_to(trace.get_current_span())
        self._recorder.child_of(parent, shape, (request_id,), links).end()

    @staticmethod
    def current() -> str | None:
        """The running span's traceparent; None outside a span."""
        return traceparent_of(trace.get_current_span())

    def sent(
        self,
        channel: str,
        events: Sequence[tuple[str, str, str | None]],
        started_ns: int,
        ended_ns: int,
        failed: frozenset[str] = frozenset(),
    ) -> None:
        """The CLIENT spans of a published batch of (event id, event type, traceparent): of each sampled event,
        and of the batch if there are several; `failed` holds unconfirmed ids."""
        if not any(is_sampled(traceparent) for _, _, traceparent in events):  # nearly always
            return
        parents = parents_of([traceparent for _, _, traceparent in events])
        shape = _shape_of(self._broker, "send", channel, SpanKind.CLIENT, _EVENT[:2])
        batch: Span | None = None
        if len(events) > 1:
            links = links_to_parents(parents, _LINKS_MAX)
            batch = self._recorder.root(_batch_of(shape), (len(events),), links, started_ns)
        link = () if batch is None else links_to(batch)
        takes_together = self._recorder.takes_together(len(events))
        together: list[str] = []
        apart: list[tuple[Span, bool]] = []
        rows: list[tuple[str, str]] = []
        for (event_id, event_type, _), parent in zip(events, parents, strict=True):
            if parent is None or parent is NOT_SAMPLED:
                continue
            if takes_together and event_id not in failed:
                together.append(parent)
                rows.append((event_id, event_type))
                continue
            fields = trace_context.fields_of(parent)
            span = self._recorder.child_of(fields, shape, (event_id, event_type), link, started_ns)
            apart.append((span, event_id in failed))
        if together:
            columns, ids = [*zip(*rows, strict=True)], span_ids(len(together))
            starts_ns = [started_ns] * len(together)
            self._recorder.keep_batch(
                SpanBatch(self._recorder, shape, together, columns, ids, link, starts_ns, ended_ns)
            )
        for span, has_failed in apart:
            if has_failed:
                span.set_status(StatusCode.ERROR, "not confirmed")
            span.end(ended_ns)
        if batch is not None:
            batch.end(ended_ns)

    @contextmanager
    def process_batch(
        self, subscription: Subscription, events: Sequence[Envelope]
    ) -> Iterator[BatchInHand | None]:
        """What begins and ends the spans of a batch's events; None when no event is traced.

        Each is a CONSUMER span, child of the span that created the event, begun when its handler starts; whoever
        began some ends them after the commit. A malformed `traceparent` is as good as none: a trace begins here
        (Trace Context, 3.2.2). A batch of several has a span of its own, linked to its sampled events.
        """
        parents = parents_of([event.traceparent for event in events])
        if parents.count(NOT_SAMPLED) == len(parents):  # nearly always
            yield None
            return
        of_event, of_batch = self._process_shapes(subscription)
        columns = (
            [event.id for event in events],
            [event.type for event in events],
            [event.subject or "" for event in events],
        )
        links = links_to_parents(parents, _LINKS_MAX) if len(events) > 1 else ()
        if not links:
            in_hand = BatchInHand(self._recorder, of_event, parents, columns, ())
            try:
                yield in_hand
            except Exception as error:
                if len(events) == 1:
                    in_hand.tell_of(error)
                raise
            finally:
                in_hand.rest()
            return
        with trace.use_span(self._recorder.root(of_batch, (len(events),), links), end_on_exit=True) as batch:
            yield BatchInHand(self._recorder, of_event, parents, columns, links_to(batch))

    def _process_shapes(self, subscription: Subscription) -> tuple[Shape, Shape]:
        """Of one of its events, and of a batch of them."""
        key = (subscription.channel, subscription.subscriber)
        shapes = self._processing.get(key)
        if shapes is None:
            name = f"process {destination_name(self._broker, subscription.channel)}"
            shape = Shape(name, SpanKind.CONSUMER, process_attributes(self._broker, subscription), _EVENT)
            shapes = self._processing[key] = shape, _batch_of(shape)
        return shapes
