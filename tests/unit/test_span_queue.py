"""Ended spans wait for their exporter, in bounds; what it does not take is counted, and nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import SpanKind
from structlog.testing import capture_logs

from shared.settings import Settings
from shared.telemetry import Telemetry
from shared.telemetry.tracing import span_queue
from shared.telemetry.tracing.event_spans import Shape
from shared.telemetry.tracing.recorder import Recorder
from shared.telemetry.tracing.span_batches import BatchInHand, Ended
from shared.telemetry.tracing.span_queue import SpanQueue

WAIT_S = 30.0
SHAPE = Shape("process", SpanKind.CONSUMER, {"a": "b"})


class Exporter(SpanExporter):
    """Takes what it is given once it is let; `answer` is what it says then, or raises."""

    def __init__(self, answer: SpanExportResult | Exception = SpanExportResult.SUCCESS) -> None:
        self.taken: list[object] = []
        self.begun, self.let = threading.Event(), threading.Event()
        self.over = False
        self._answer = answer

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.begun.set()
        assert self.let.wait(WAIT_S)
        self.taken += spans
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def shutdown(self) -> None:
        self.over = True


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_queue, "WAITING_MAX", 10)
    monkeypatch.setattr(span_queue, "AT_ONCE_MAX", 4)
    monkeypatch.setattr(span_queue, "_DELAY_S", WAIT_S)


def end_spans(queue: SpanQueue, count: int) -> list[Ended]:
    ended: list[Ended] = []
    recorder = Recorder(TraceIdRatioBased(1.0), [queue.add, ended.append])
    for _ in range(count):
        recorder.root(SHAPE).end()
    return ended


def test_what_a_slow_exporter_leaves_is_dropped_and_counted_and_the_rest_is_exported_in_order() -> None:
    exporter = Exporter()
    queue = SpanQueue(exporter, "slow")
    at_once = end_spans(queue, 4)
    assert exporter.begun.wait(WAIT_S)
    waiting = end_spans(queue, 15)
    assert queue.lost == {"queue_full": 5, "not_exported": 0, "already_shutdown": 0}
    exporter.let.set()
    with capture_logs() as said:
        queue.shutdown()
    assert exporter.taken == [*at_once, *waiting[:10]]
    assert exporter.over
    assert [(line["event"], line["to"], line["queue_full"]) for line in said] == [
        ("telemetry.spans_lost", "slow", 5)
    ]
    end_spans(queue, 2)
    assert queue.lost["already_shutdown"] == 2


def end_batch(queue: SpanQueue, count: int) -> list[Ended]:
    """A batch of so many in one piece."""
    ended: list[Ended] = []
    recorder = Recorder(TraceIdRatioBased(1.0), [queue.add, ended.append])
    parents = [f"00-{number:032x}-{number:016x}-01" for number in range(1, count + 1)]
    in_hand = BatchInHand(recorder, SHAPE, parents, (), ())
    for number in range(count):
        in_hand.begin(number)
    in_hand.rest()
    in_hand.end(["done"] * count, {})
    return ended


def test_of_a_batch_each_span_counts() -> None:
    exporter = Exporter()
    queue = SpanQueue(exporter, "slow")
    at_once = end_batch(queue, 5)  # so many that nobody waits for the time
    assert exporter.begun.wait(WAIT_S)
    waiting = end_batch(queue, 9) + end_batch(queue, 3)
    end_batch(queue, 3)
    end_spans(queue, 1)
    assert queue.lost["queue_full"] == 4
    exporter.let.set()
    with capture_logs():
        queue.shutdown()
    assert exporter.taken == [*at_once, *waiting]
    end_batch(queue, 2)
    assert queue.lost == {"queue_full": 4, "not_exported": 0, "already_shutdown": 2}


def test_of_a_batch_that_is_not_exported_each_span_is_lost() -> None:
    exporter = Exporter(SpanExportResult.FAILURE)
    exporter.let.set()
    queue = SpanQueue(exporter, "failing")
    end_batch(queue, 3)
    end_spans(queue, 1)
    with capture_logs():
        queue.shutdown()
    assert queue.lost["not_exported"] == 4


@pytest.mark.parametrize("answer", [SpanExportResult.FAILURE, RuntimeError("planted")])
def test_an_exporter_that_fails_is_counted_and_given_the_next(answer: SpanExportResult | Exception) -> None:
    exporter = Exporter(answer)
    exporter.let.set()
    queue = SpanQueue(exporter, "failing")
    with capture_logs():
        ended = end_spans(queue, 3)
        assert queue.force_flush()
        ended += end_spans(queue, 3)
        queue.shutdown()
    assert exporter.taken == ended
    assert queue.lost["not_exported"] == 6


def test_what_cannot_be_written_to_files_is_counted(tmp_path: Path) -> None:
    (tmp_path / "telemetry").touch()  # no directory
    settings = Settings(
        broker="rabbit", http_port=1, postgres_dsn="postgresql://-", redis_url="redis://-", rabbit_url="amqp://-",
        otlp_dir=tmp_path / "telemetry",
    )  # fmt: skip
    telemetry = Telemetry(settings, "order")
    with telemetry.spans.create("order", "order.placed", "s"):
        pass
    with capture_logs():
        telemetry.shutdown()
    assert telemetry._provider.spans_lost() == {("files", "not_exported"): 1}
