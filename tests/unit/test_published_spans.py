"""The span of an event that is published: whose child it is, what it says; its context goes with the event."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from shared.envelope import Envelope
from shared.event import EventData
from shared.publishing.uow import UnitOfWork
from shared.publishing.written import Cause
from shared.telemetry import Spans
from shared.telemetry.tracing.recorder import Recorder
from shared.telemetry.tracing.span_batches import Ended, readable

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


class Happened(EventData):
    channel = "thing"
    event_type = "thing.happened"


class Published:
    """A unit of work that sends nothing, and the spans of what it publishes."""

    def __init__(self, ratio: float = 1.0) -> None:
        self._kept: list[Ended] = []
        self.spans = Spans(Recorder(TraceIdRatioBased(ratio), [self._kept.append]), "kafka")
        nowhere: Any = None
        self.uow = UnitOfWork(nowhere, "tests", self.spans)

    def the_span(self) -> ReadableSpan:
        [span] = readable(self._kept)
        self._kept.clear()
        return span

    def none(self) -> bool:
        return self._kept == []


@pytest.fixture
def published() -> Published:
    return Published()


def place(span: ReadableSpan) -> tuple[str, str | None]:
    """Its trace, and its parent within it."""
    assert span.context is not None
    return f"{span.context.trace_id:032x}", None if span.parent is None else f"{span.parent.span_id:016x}"


def traceparent(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


def caused_by(traceparent: str) -> Envelope:
    return Envelope(source="/tests", type="thing.happened", traceparent=traceparent, data=None)


def test_it_says_what_is_published_and_its_context_goes_with_the_event(published: Published) -> None:
    event = published.uow.publish(Happened(), subject="s-1", key="k-1", link=SAMPLED)
    span = published.the_span()
    assert span.name == "create thing-events"
    said = dict(span.attributes or {})
    assert said["messaging.message.id"] == event.id
    assert (said["tandem.event.type"], said["tandem.event.subject"]) == ("thing.happened", "s-1")
    assert [f"{link.context.span_id:016x}" for link in span.links] == [SPAN]
    assert event.traceparent == traceparent(span)


def test_in_a_request_it_is_the_child_of_the_request_s(published: Published) -> None:
    with published.spans.ask("other", "other.asked", "s") as request:
        event = published.uow.publish(Happened(), subject="s")
        assert published.uow.origin() == Cause(None, request.traceparent, None)
        span = published.the_span()
    _, trace, running, _ = (request.traceparent or "").split("-")
    assert place(span) == (trace, running)
    assert event.traceparent == traceparent(span)


def test_in_a_request_that_is_not_sampled_there_is_none_and_the_request_s_context_goes_on() -> None:
    published = Published(ratio=0.0)
    with published.spans.ask("other", "other.asked", "s") as request:
        events = [published.uow.publish(Happened(), subject="s", link=SAMPLED) for _ in range(2)]
        assert published.uow.origin() == Cause(None, request.traceparent, None)
    assert {event.traceparent for event in events} == {request.traceparent}
    assert (request.traceparent or "").endswith("-00")
    assert published.none()


def test_outside_of_every_span_an_event_begins_a_trace(published: Published) -> None:
    event = published.uow.publish(Happened(), subject="s")
    span = published.the_span()
    assert (span.parent, event.traceparent) == (None, traceparent(span))


def test_of_an_event_that_is_not_sampled_there_is_none_and_its_context_goes_on(published: Published) -> None:
    published.uow.begin_event(cause := caused_by(UNSAMPLED))
    assert published.uow.origin() == Cause(cause.id, UNSAMPLED, cause.id)
    assert published.uow.publish(Happened(), subject="s").traceparent == UNSAMPLED
    assert published.none()


@pytest.mark.parametrize("event_id", [None, "an-event"])
def test_what_is_published_for_an_earlier_cause_goes_on_with_its_trace(
    published: Published, event_id: str | None
) -> None:
    with published.spans.ask("other", "other.asked", "s"):
        published.uow.publish(Happened(), subject="s", cause=Cause(event_id, SAMPLED, "root"))
        assert place(published.the_span()) == (TRACE, SPAN)
        event = published.uow.publish(Happened(), subject="s", cause=Cause(event_id, UNSAMPLED, "root"))
        assert published.none()
    assert event.traceparent == UNSAMPLED
    assert (event.envelope.causationid, event.envelope.correlationid) == (event_id, "root")
