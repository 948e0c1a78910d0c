"""Sets up the OpenTelemetry SDK for one process, with exporters to where its spans and metrics go.

Exporters are imported only where the settings ask for them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NoOpTracer, Tracer

from shared.errors import ConfigurationError
from shared.settings import Settings
from shared.telemetry.conventions import SCHEMA_URL, SCOPE
from shared.telemetry.files import RotatingLines
from shared.telemetry.histograms import Histograms
from shared.telemetry.http_requests import RequestMetrics, RequestSpans
from shared.telemetry.tracing import Recorder, SpanLines, SpanQueue

_OF_INSTRUMENTATION = ("OTEL_INSTRUMENTATION_HTTP_", "OTEL_PYTHON_INSTRUMENTATION_HTTP_", "OTEL_SEMCONV_")
"""Variables of OpenTelemetry's instrumentation of HTTP servers: headers to capture, methods, conventions."""
_OF_HISTOGRAMS = ("OTEL_METRICS_EXEMPLAR_FILTER", "OTEL_EXPORTER_OTLP_METRICS_")
"""Variables that say how the SDK's histograms are kept: with them all are the SDK's."""
_OTLP_TIMEOUT_S = 3.0
_SHUTDOWN_S = 5.0


class Provider:
    """One process's tracer and meter.

    Spans go to OTLP JSON-lines files, to an OTLP endpoint, or nowhere; metrics to such files, and always to the
    page for Prometheus.
    """

    def __init__(self, settings: Settings, service: str, process: str) -> None:
        """Raises `ConfigurationError` for an `OTEL_…` variable that the SDK cannot read."""
        try:
            self._build(settings, service, process)
        except ValueError as error:
            raise ConfigurationError(f"OpenTelemetry refuses its own variables: {error}") from None
        self.tracer: Tracer = self._tracers.get_tracer(SCOPE, schema_url=SCHEMA_URL)
        self.recorder = Recorder(
            None if isinstance(self.tracer, NoOpTracer) else self._sampler,
            [queue.add for queue in self._queues],
            self._tracers.resource,
            self._limits,
        )
        self.meter: Meter = self._meters.get_meter(SCOPE, schema_url=SCHEMA_URL)

    def _build(self, settings: Settings, service: str, process: str) -> None:
        resource = Resource.create(
            {"service.name": service, "service.instance.id": f"{process}-{os.getpid()}"}, SCHEMA_URL
        )
        self._sampler, self._limits = TraceIdRatioBased(settings.trace_ratio), SpanLimits()
        self._tracers = TracerProvider(
            resource=resource, sampler=ParentBased(self._sampler), span_limits=self._limits
        )
        self._queues: list[SpanQueue] = []
        self._histograms = None if _any_is_set(_OF_HISTOGRAMS) else Histograms()
        readers = [_prometheus_reader(self._histograms)]
        if settings.otlp_dir is not None:
            self._queues.append(_span_files(settings.otlp_dir, process))
            readers.append(
                _metric_files(settings.otlp_dir, process, settings.metrics_interval_s, self._histograms)
            )
        if settings.otlp_endpoint is not None:
            self._queues.append(_span_endpoint(settings.otlp_endpoint))
        for queue in self._queues:
            self._tracers.add_span_processor(queue)
        self._meters = MeterProvider(metric_readers=readers, resource=resource)

    def instrument_http(self, app: Any) -> None:
        """Give every request of a FastAPI application a server span (probes and metrics excepted)."""
        if _any_is_set(_OF_INSTRUMENTATION):
            self._instrument_as_told(app)
            return
        build, metrics = app.build_middleware_stack, RequestMetrics(self.meter, self._histograms)
        app.build_middleware_stack = lambda: RequestSpans(build(), self.recorder, metrics)

    def _instrument_as_told(self, app: Any) -> None:
        """By OpenTelemetry's own instrumentation, whose variables say more than ours can do."""
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")  # the only switch that the library has
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._tracers,
            meter_provider=self._meters,
            excluded_urls="health/.*,metrics",
            exclude_spans=["send", "receive"],
        )

    def spans_lost(self) -> Mapping[tuple[str, str], int]:
        """How many spans were recorded and not exported, by exporter and reason."""
        return {(queue.name, reason): n for queue in self._queues for reason, n in queue.lost.items() if n}

    def shutdown(self) -> None:
        """Write what waits and stop, within `_SHUTDOWN_S`: what is not exported by then is dropped."""
        ending = threading.Thread(target=self._shut_down, name="telemetry-shutdown", daemon=True)
        ending.start()
        ending.join(_SHUTDOWN_S)

    def _shut_down(self) -> None:
        self._meters.shutdown()
        self._tracers.shutdown()


def _any_is_set(beginnings: tuple[str, ...]) -> bool:
    """Whether there is a variable whose name begins so."""
    return any(name.startswith(beginnings) for name in os.environ)


def _span_files(directory: Path, process: str) -> SpanQueue:
    return SpanQueue(SpanLines(RotatingLines(directory / f"traces-{process}.jsonl")), "files")


def _metric_files(directory: Path, process: str, interval_s: float, histograms: Histograms | None) -> MetricReader:
    from opentelemetry.exporter.otlp.json.file.metric_exporter import FileMetricExporter

    with_histograms = _as_it_is if histograms is None else histograms.exporter()

    class Exporter(FileMetricExporter):
        def export(
            self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
        ) -> MetricExportResult:
            return super().export(with_histograms(metrics_data), timeout_millis, **kwargs)

    lines = RotatingLines(directory / f"metrics-{process}.jsonl")
    return PeriodicExportingMetricReader(Exporter(stream=cast("IO[str]", lines)), interval_s * 1_000)


def _span_endpoint(endpoint: str) -> SpanQueue:
    from shared.telemetry.tracing.collector import span_exporter

    return SpanQueue(span_exporter(endpoint, _OTLP_TIMEOUT_S), "collector")


def _prometheus_reader(histograms: Histograms | None) -> MetricReader:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader

    with_histograms = _as_it_is if histograms is None else histograms.exporter()

    class Reader(PrometheusMetricReader):
        def _receive_metrics(
            self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
        ) -> None:
            super()._receive_metrics(with_histograms(metrics_data), timeout_millis, **kwargs)

    return Reader()


def _as_it_is(collected: MetricsData) -> MetricsData:
    return collected


def prometheus_page() -> tuple[bytes, str]:
    """Every metric of this process in Prometheus's text format, and that format's content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return generate_latest(), CONTENT_TYPE_LATEST
