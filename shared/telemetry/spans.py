"""Spans: one trace leads from the HTTP request to the last effect.

The request's span → `create` (its context is the event's `traceparent`) → `send` in the relay and `process` in
each subscriber. A batch has a span of its own, joined to its events' spans by links, since it belongs to many
traces at once. No payload enters a span. Events that are not sampled cost nothing: their spans are not started.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
)
from uuid_utils import uuid7

from shared.broker import Subscription, destination_name
from shared.envelope import Envelope
from shared.settings import BrokerName
from shared.telemetry.conventions import destination_attributes, process_attributes

_TRACEPARENT: Final = re.compile("([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LENGTH, _EVEN = 55, "02468ace"
"""With so many characters the flags are the last two, and end in an even digit where the trace is not recorded."""
_LINKS_MAX = 128  # the SDK's own limit per span; the other spans of the batch still link to it


@dataclass(frozen=True, slots=True)
class Created:
    """A new event's id and the trace context that it carries, None when there is none."""

    event_id: str
    traceparent: str | None


def is_sampled(traceparent: str | None) -> bool:
    """Whether a W3C `traceparent` says that its trace is recorded; of the flags, only the first bit says that."""
    if traceparent is None or (len(traceparent) == _LENGTH and traceparent[-1] in _EVEN):  # nearly always
        return False
    fields = _fields(traceparent)
    return fields is not None and _says_sampled(fields)


def _says_sampled(fields: tuple[str, str, str]) -> bool:
    return int(fields[2], 16) & TraceFlags.SAMPLED != 0


def _fields(traceparent: str | None) -> tuple[str, str, str] | None:
    """Trace id, span id and flags of a W3C Trace Context `traceparent`; None when it is absent or malformed.

    Of a later version these are read, and whatever stands behind them is not (Trace Context, 3.2.4).
    """
    found = _TRACEPARENT.fullmatch(traceparent or "")
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    known = version != "ff" and (version != "00" or more is None)
    return (trace_id, span_id, flags) if known and trace_id.strip("0") and span_id.strip("0") else None


def remote_span(traceparent: str | None) -> SpanContext | None:
    """The remote span that a W3C Trace Context `traceparent` names; None when it is absent or malformed."""
    fields = _fields(traceparent)
    if fields is None:
        return None
    trace_id, span_id, flags = (int(field, 16) for field in fields)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))


def _format(context: SpanContext) -> str | None:
    """The `traceparent` of a span; None where there is none, as when the SDK is switched off."""
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & TraceFlags.SAMPLED:02x}"


def _links(traceparents: Sequence[str | None]) -> list[Link]:
    contexts = (remote_span(traceparent) for traceparent in traceparents if is_sampled(traceparent))
    return [Link(context) for context in contexts if context is not None][:_LINKS_MAX]


def current_trace_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the running span for a log line; empty outside a span."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


class Spans:
    """Starts one process's spans of events and batches."""

    def __init__(self, tracer: Tracer, broker: BrokerName) -> None:
        self._tracer = tracer
        self._broker = broker

    @contextmanager
    def create(
        self,
        channel: str,
        event_type: str,
        subject: str,
        cause: str | None = None,
        *,
        link: str | None = None,
        parent: str | None = None,
    ) -> Iterator[Created]:
        """The PRODUCER span whose context the new event carries; `subject` makes it findable.

        It is the child of the running span, or of `parent`; where `cause` is not sampled, there is none. All
        three are traceparents.
        """
        event_id = str(uuid7())
        caused_in = remote_span(cause)
        if caused_in is not None and not caused_in.trace_flags.sampled:
            yield Created(event_id, _format(caused_in))
            return
        name = f"create {destination_name(self._broker, channel)}"
        within = remote_span(parent)
        context = None if within is None else trace.set_span_in_context(NonRecordingSpan(within))
        span = self._tracer.start_span(name, context, SpanKind.PRODUCER, links=_links([link]))
        if span.is_recording():
            span.set_attributes(
                {
                    **destination_attributes(self._broker, channel),
                    "messaging.operation.name": "create",
                    "messaging.operation.type": "create",
                    "messaging.message.id": event_id,
                    "tandem.event.type": event_type,
                    "tandem.event.subject": subject,
                }
            )
        with trace.use_span(span, end_on_exit=True):
            yield Created(event_id, _format(span.get_span_context()))

    @contextmanager
    def ask(self, channel: str, event_type: str, subject: str) -> Iterator[Created]:
        """The CLIENT span of a request, from its making until its answer; its context is the request's."""
        name = f"ask {destination_name(self._broker, channel)}"
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT)
        event_id = str(uuid7())
        if span.is_recording():
            span.set_attributes(
                self._asked_attributes(channel, event_id, "ask")
                | {
                    "tandem.event.type": event_type,
                    "tandem.event.subject": subject,
                }
            )
        with trace.use_span(span, end_on_exit=True):
            yield Created(event_id, _format(span.get_span_context()))

    def answered(self, channel: str, request_id: str, traceparent: str | None) -> None:
        """The CONSUMER span of an answer that came, child of the span in which it was made."""
        parent = remote_span(traceparent) if is_sampled(traceparent) else None
        if parent is None:
            return
        self._tracer.start_span(
            f"receive reply {destination_name(self._broker, channel)}",
            trace.set_span_in_context(NonRecordingSpan(parent), otel_context.Context()),
            SpanKind.CONSUMER,
            self._asked_attributes(channel, request_id, "receive"),
            [Link(trace.get_current_span().get_span_context())],
        ).end()

    def _asked_attributes(self, channel: str, request_id: str, operation: str) -> dict[str, str]:
        return {
            **destination_attributes(self._broker, channel),
            "messaging.operation.name": operation,
            "messaging.operation.type": "send" if operation == "ask" else "receive",
            "messaging.message.conversation_id": request_id,
        }

    @staticmethod
    def current() -> str | None:
        """The running span's traceparent; None outside a span."""
        return _format(trace.get_current_span().get_span_context())

    def sent(
        self,
        channel: str,
        events: Sequence[tuple[str, str, str | None]],
        started_ns: int,
        ended_ns: int,
        failed: frozenset[str] = frozenset(),
    ) -> None:
        """The CLIENT spans of a published batch of (event id, event type, traceparent): its own, and one for each
        sampled event; `failed` holds unconfirmed ids."""
        links = _links([traceparent for _, _, traceparent in events])
        if not links:
            return
        name = f"send {destination_name(self._broker, channel)}"
        attributes = {
            **destination_attributes(self._broker, channel),
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
        }
        batch = self._tracer.start_span(
            f"{name} batch", otel_context.Context(), SpanKind.CLIENT,
            {**attributes, "messaging.batch.message_count": len(events)}, links, started_ns,
        )  # fmt: skip
        for event_id, event_type, traceparent in events:
            parent = remote_span(traceparent) if is_sampled(traceparent) else None
            if parent is None:
                continue
            span = self._tracer.start_span(
                name,
                trace.set_span_in_context(NonRecordingSpan(parent), otel_context.Context()),
                SpanKind.CLIENT,
                {**attributes, "messaging.message.id": event_id, "tandem.event.type": event_type},
                [Link(batch.get_span_context())],
                started_ns,
            )
            if event_id in failed:
                span.set_status(Status(StatusCode.ERROR, "not confirmed"))
            span.end(ended_ns)
        batch.end(ended_ns)

    @contextmanager
    def process_batch(self, subscription: Subscription, events: Sequence[Envelope]) -> Iterator[Span | None]:
        """The batch's own span, linked to its sampled events; None when none of them is sampled."""
        links = _links([event.traceparent for event in events])
        if not links:
            yield None
            return
        attributes: dict[str, str | int] = {
            **process_attributes(self._broker, subscription),
            "messaging.batch.message_count": len(events),
        }
        name = f"process {destination_name(self._broker, subscription.channel)} batch"
        with self._tracer.start_as_current_span(
            name, otel_context.Context(), SpanKind.CONSUMER, attributes, links
        ) as span:
            yield span

    def start_process(self, subscription: Subscription, event: Envelope, batch: Span | None) -> Span | None:
        """One event's CONSUMER span, child of the span that created it; None when it is not sampled.

        A malformed `traceparent` is as good as none: a trace begins here (Trace Context, 3.2.2).
        Started when its handler starts; whoever started it ends it with `end_process` after the commit.
        """
        fields = _fields(event.traceparent)
        if fields is not None and not _says_sampled(fields):  # nearly always
            return None
        parent = remote_span(event.traceparent)
        base = otel_context.Context()
        context = base if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), base)
        attributes = {
            **process_attributes(self._broker, subscription),
            "messaging.message.id": event.id,
            "tandem.event.type": event.type,
            "tandem.event.subject": event.subject or "",
        }
        name = f"process {destination_name(self._broker, subscription.channel)}"
        links = [Link(batch.get_span_context())] if batch is not None else []
        return self._tracer.start_span(name, context, SpanKind.CONSUMER, attributes, links)

    @staticmethod
    def inside(span: Span) -> AbstractContextManager[object]:
        """Make `span` the current one without ending it."""
        return trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)

    @staticmethod
    def end_process(span: Span, status: str, error: BaseException | None = None) -> None:
        """End an event's span; an error is named by its type and sentence, never by the payload."""
        span.set_attribute("tandem.status", status)
        if error is not None:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, str(error).partition("\n")[0][:200]))
        span.end()
