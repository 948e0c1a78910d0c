"""Spans of a batch's events are columns until somebody looks at one, which nobody can tell from outside."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from shared.telemetry import current_trace_ids
from shared.telemetry.tracing.event_spans import EventSpan, Shape
from shared.telemetry.tracing.recorder import Recorder
from shared.telemetry.tracing.span_batches import BatchInHand, Ended, SpanBatch, readable
from shared.telemetry.tracing.traceparent import NOT_SAMPLED, Parent

PARENTS = tuple(f"00-{number:032x}-{number:016x}-01" for number in range(1, 6))
SHAPE = Shape("process", SpanKind.CONSUMER, {"a": "b"}, ("id",))
LINKS = ((f"{7:032x}", f"{8:016x}", False),)


class Batch:
    """One in hand, and what became of it."""

    def __init__(self, parents: Sequence[Parent] = PARENTS, limits: SpanLimits | None = None) -> None:
        self.kept: list[Ended] = []
        recorder = Recorder(TraceIdRatioBased(1.0), [self.kept.append], limits=limits)
        columns = ([f"event-{number}" for number in range(len(parents))],)
        self._count = len(parents)
        self._in_hand = BatchInHand(recorder, SHAPE, parents, columns, LINKS)

    def begin(self, number: int) -> trace.Span:
        """The running span, which nobody has looked at."""
        self._in_hand.begin(number)
        running = trace.get_current_span()
        self._in_hand.rest()
        return running

    def end(self, errors: dict[int, BaseException] | None = None) -> dict[str, ReadableSpan]:
        self._in_hand.end([f"outcome {number}" for number in range(self._count)], errors or {})
        return {str((span.attributes or {})["id"]): span for span in readable(self.kept)}


def said(span: ReadableSpan) -> tuple[object, ...]:
    """All but its own id and its times."""
    assert span.context is not None
    assert span.parent is not None
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time <= span.end_time
    links = [(link.context.trace_id, link.context.span_id) for link in span.links]
    return span.context.trace_id, span.parent.span_id, dict(span.attributes or {}), links, span.status.status_code


def expected(number: int, **more: str) -> tuple[object, ...]:
    attributes = {"a": "b", "id": f"event-{number}", "tandem.status": f"outcome {number}", **more}
    status = StatusCode.ERROR if "error.type" in more else StatusCode.UNSET
    return number + 1, number + 1, attributes, [(7, 8)], status


def test_what_nobody_looked_at_is_kept_as_one_batch_and_the_others_as_what_they_became() -> None:
    batch = Batch()
    for number in (0, 1, 2, 4):
        running = batch.begin(number)
        if number == 1:
            running.set_attribute("mine", "yes")
    spans = batch.end({2: LookupError("gone")})
    assert {name: said(span) for name, span in spans.items()} == {
        "event-0": expected(0),
        "event-1": expected(1, mine="yes"),
        "event-2": expected(2, **{"error.type": "LookupError"}),
        "event-4": expected(4),
    }
    assert sorted(type(each).__name__ for each in batch.kept) == ["EventSpan", "SpanBatch", "_UnseenSpan"]
    assert len({span.context.span_id for span in spans.values() if span.context}) == 4


def log_within(span: trace.Span) -> None:
    with trace.use_span(span):
        assert current_trace_ids()["trace_id"] == f"{4:032x}"


LOOKS: list[Callable[[trace.Span], object]] = [
    lambda span: span.get_span_context(),
    lambda span: span.is_recording(),
    lambda span: span.set_status(StatusCode.OK),
    log_within,
]


@pytest.mark.parametrize("look", LOOKS)
def test_a_span_that_was_looked_at_is_written_with_what_was_seen(look: Callable[[trace.Span], object]) -> None:
    batch = Batch()
    running = batch.begin(3)
    look(running)
    context = running.get_span_context()
    assert running.is_recording()
    [span] = batch.end().values()
    assert span.context == context
    assert (context.trace_id, span.attributes) == (4, expected(3)[2])
    assert not running.is_recording()


def test_a_span_that_is_looked_at_when_it_has_ended_says_who_it_was_and_takes_nothing_more() -> None:
    batch = Batch()
    running = batch.begin(0)
    [before] = batch.end().values()
    running.set_attribute("late", 1)
    running.end()
    assert running.get_span_context() == before.context
    assert not running.is_recording()
    assert [said(span) for span in readable(batch.kept)] == [expected(0)]


@pytest.fixture
def _hasty() -> Iterator[None]:
    """Threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty")
def test_of_threads_that_look_at_once_none_loses_what_it_set() -> None:
    together = threading.Barrier(8)
    batch = Batch(PARENTS * 40)
    running = [batch.begin(number) for number in range(200)]

    def set_own(name: str) -> None:
        for span in running:
            together.wait(30)
            span.set_attribute(name, "set")

    threads = [threading.Thread(target=set_own, args=(f"thread-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    spans = batch.end()
    names = {f"thread-{number}" for number in range(8)}
    assert len(spans) == 200
    assert all(names <= set(span.attributes or {}) for span in spans.values())


def test_an_event_that_is_not_sampled_has_no_span_and_one_without_a_trace_begins_one() -> None:
    batch = Batch([NOT_SAMPLED, None, PARENTS[2]])
    before = trace.get_current_span()
    assert batch.begin(0) is before
    assert isinstance(batch.begin(1), EventSpan)
    batch.begin(2)
    spans = batch.end()
    assert list(spans) == ["event-1", "event-2"]
    assert spans["event-1"].parent is None
    assert said(spans["event-2"]) == expected(2)


def test_limits_of_the_environment_hold_in_a_batch() -> None:
    batch = Batch(limits=SpanLimits(max_span_attribute_length=4))
    for number in range(3):
        batch.begin(number)
    batch.end()
    assert [dict(span.attributes or {}) for span in readable(batch.kept)] == [
        {"a": "b", "id": "even", "tandem.status": "outc"}
    ] * 3


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_events_have_the_same_spans(count: int) -> None:
    batch = Batch(PARENTS[:count])
    for number in range(count):
        batch.begin(number)
    assert [said(span) for span in batch.end().values()] == [expected(number) for number in range(count)]
    assert len(batch.kept) == (1 if count == 3 else count)


def test_a_large_batch_is_handed_over_in_parts_that_have_every_span_once() -> None:
    batch = Batch(PARENTS * 300)
    for number in range(1_500):
        batch.begin(number)
    spans = batch.end()
    assert [len(part) for part in batch.kept if isinstance(part, SpanBatch)] == [512, 512, 476]
    assert list(spans) == [f"event-{number}" for number in range(1_500)]
    assert all((span.attributes or {})["tandem.status"] == f"outcome {name[6:]}" for name, span in spans.items())
    assert len({span.context.span_id for span in spans.values() if span.context}) == 1_500


def test_what_no_span_has_is_asked_of_one_in_vain() -> None:
    running = Batch().begin(0)
    assert not hasattr(running, "nothing_of_the_kind")
