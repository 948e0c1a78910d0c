"""One process's telemetry: its spans, its metrics, and the SDK below them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.settings import Settings
from shared.telemetry.metrics import Metrics
from shared.telemetry.provider import Provider
from shared.telemetry.spans import Spans
from shared.telemetry.steps import StepSpans


class Telemetry:
    """What a process is built with; a part that only needs `spans` or `metrics` is given these."""

    def __init__(self, settings: Settings, service: str, process: str | None = None) -> None:
        self._provider = Provider(settings, service, process or service)
        self.spans = Spans(self._provider.recorder, settings.broker)
        self.steps = StepSpans(self._provider.recorder)
        self.metrics = Metrics(self._provider.meter, settings.broker)
        self.metrics.spans_lost_from(self._provider.spans_lost)

    def sent(
        self,
        channel: str,
        events: Sequence[tuple[str, str, str | None]],
        started_ns: int,
        ended_ns: int,
        failed: frozenset[str] = frozenset(),
    ) -> None:
        """Record a published batch of (event id, event type, traceparent); `failed` holds unconfirmed ids."""
        self.metrics.sent(
            channel,
            confirmed=len(events) - len(failed),
            failed=len(failed),
            duration_s=(ended_ns - started_ns) / 1e9,
        )
        self.spans.sent(channel, events, started_ns, ended_ns, failed)

    def instrument_http(self, app: Any) -> None:
        """Give every request of a FastAPI application a server span (probes and metrics excepted)."""
        self._provider.instrument_http(app)

    def shutdown(self) -> None:
        """Write what waits and stop, within some seconds."""
        self._provider.shutdown()
