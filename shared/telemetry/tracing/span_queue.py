"""Ended spans on their way to an exporter: nobody waits for it, and what it cannot keep up with is counted."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

import structlog
from opentelemetry import context as otel_context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from shared.telemetry.tracing.span_batches import Ended, SpanBatch

_log = structlog.get_logger(__name__)

WAITING_MAX = 8_192
"""Spans that may wait; when so many do, what comes is dropped: one, or a batch."""
AT_ONCE_MAX = 256
"""When so many wait they are exported before their time; so many, and what is left of a batch, are exported at
once."""
_DELAY_S = 0.5
_SHUTDOWN_S = 5.0
_SAY_INTERVAL_S = 60.0


class SpanQueue(SpanProcessor):
    """Hands spans to an exporter in batches, every half second or sooner, from a thread of its own.

    Of the SDK's spans it is a processor; spans of events are given to `add`. `lost` says how many were not
    exported, by reason: `queue_full`, `not_exported`, and `already_shutdown`. The log says so once a minute.
    """

    def __init__(self, exporter: SpanExporter, name: str) -> None:
        self.name = name
        self.lost = {"queue_full": 0, "not_exported": 0, "already_shutdown": 0}
        self._exporter = exporter
        self._waiting: deque[Ended] = deque()
        self._taken, self._given = 0, 0
        """How many spans were put into the queue, and out of it: their difference waits."""
        self._taking = threading.RLock()
        self._exporting = threading.Lock()
        self._due = threading.Event()
        self._ending = False
        self._said, self._say_at = 0, 0.0
        self._thread = threading.Thread(target=self._run, name=f"spans-to-{name}", daemon=True)
        self._thread.start()

    def add(self, ended: Ended) -> None:
        """Take a span that has ended, or a batch of them; never waits for the exporter and never raises."""
        count = _count(ended)
        with self._taking:  # which threads take from each other alone, and none that exports
            waiting = self._taken - self._given
            if waiting >= WAITING_MAX or self._ending:
                self.lost["already_shutdown" if self._ending else "queue_full"] += count
                return
            self._taken += count
            self._waiting.append(ended)
        if waiting + count >= AT_ONCE_MAX and not self._due.is_set():
            self._due.set()

    def on_end(self, span: ReadableSpan) -> None:
        """Take one of the SDK's, where it is recorded."""
        if span.context is not None and span.context.trace_flags.sampled:
            self.add(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what waits now, in the calling thread; False when that takes longer than allowed."""
        deadline = time.monotonic() + timeout_millis / 1_000
        while self._waiting:
            if time.monotonic() >= deadline:
                return False
            self._export_batch()
        return True

    def shutdown(self) -> None:
        """Export what waits, within some seconds, and stop."""
        self._ending = True
        self._due.set()
        self._thread.join(_SHUTDOWN_S)
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._ending:
            self._due.wait(_DELAY_S)
            self._due.clear()
            self._export_batch()
            while self._taken - self._given >= AT_ONCE_MAX:
                self._export_batch()
            self._say_what_is_lost()
        while self._waiting:
            self._export_batch()
        self._say_what_is_lost()

    def _export_batch(self) -> None:
        with self._exporting:
            batch, count = self._next()
            if not batch:
                return
            token = otel_context.attach(_untraced())
            try:
                result = self._exporter.export(batch)  # type: ignore[arg-type]  # ours takes spans of events, too
            except Exception:  # noqa: BLE001 - one batch must not end the thread
                _log.exception("telemetry.not_exported", to=self.name)
                result = SpanExportResult.FAILURE
            finally:
                otel_context.detach(token)
            if result is not SpanExportResult.SUCCESS:
                self.lost["not_exported"] += count

    def _next(self) -> tuple[Sequence[Ended], int]:
        """What is exported now, and how many spans that are."""
        batch: list[Ended] = []
        count = 0
        while self._waiting and count < AT_ONCE_MAX:
            batch.append(self._waiting.popleft())
            count += _count(batch[-1])
        self._given += count
        return batch, count

    def _say_what_is_lost(self) -> None:
        lost = sum(self.lost.values())
        if lost > self._said and time.monotonic() >= self._say_at:
            self._said, self._say_at = lost, time.monotonic() + _SAY_INTERVAL_S
            _log.warning("telemetry.spans_lost", to=self.name, **self.lost)


def _count(ended: Ended) -> int:
    return len(ended) if isinstance(ended, SpanBatch) else 1


def _untraced() -> otel_context.Context:
    """In which an instrumented client traces nothing: exporting a span must not make another."""
    return otel_context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, value=True)
