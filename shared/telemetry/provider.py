"""Sets up the OpenTelemetry SDK for one process, with exporters to where its spans and metrics go.

Exporters are imported only where the settings ask for them.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO, Any, cast

from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Tracer

from shared.errors import ConfigurationError
from shared.settings import Settings
from shared.telemetry.conventions import SCHEMA_URL
from shared.telemetry.files import RotatingLines

_SCOPE = "tandem"
_OTLP_TIMEOUT_S = 3.0
_SHUTDOWN_S = 5.0
_SPANS_DELAY_MS = 500
_SPANS_WAITING_MAX = 8_192
_SPANS_AT_ONCE_MAX = 512


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
        self.tracer: Tracer = self._tracers.get_tracer(_SCOPE, schema_url=SCHEMA_URL)
        self.meter: Meter = self._meters.get_meter(_SCOPE, schema_url=SCHEMA_URL)

    def _build(self, settings: Settings, service: str, process: str) -> None:
        resource = Resource.create(
            {"service.name": service, "service.instance.id": f"{process}-{os.getpid()}"}, SCHEMA_URL
        )
        self._tracers = TracerProvider(
            resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio))
        )
        readers = [_prometheus_reader()]
        if settings.otlp_dir is not None:
            self._tracers.add_span_processor(_span_files(settings.otlp_dir, process))
            readers.append(_metric_files(settings.otlp_dir, process, settings.metrics_interval_s))
        if settings.otlp_endpoint is not None:
            self._tracers.add_span_processor(_span_endpoint(settings.otlp_endpoint))
        self._meters = MeterProvider(metric_readers=readers, resource=resource)

    def instrument_http(self, app: Any) -> None:
        """Give every request of a FastAPI application a server span (probes and metrics excepted)."""
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")  # the only switch that the library has
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._tracers,
            meter_provider=self._meters,
            excluded_urls="health/.*,metrics",
            exclude_spans=["send", "receive"],
        )

    def shutdown(self) -> None:
        """Write what waits and stop, within `_SHUTDOWN_S`: what is not exported by then is dropped."""
        ending = threading.Thread(target=self._shut_down, name="telemetry-shutdown", daemon=True)
        ending.start()
        ending.join(_SHUTDOWN_S)

    def _shut_down(self) -> None:
        self._meters.shutdown()
        self._tracers.shutdown()


def _span_files(directory: Path, process: str) -> BatchSpanProcessor:
    from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter

    lines = RotatingLines(directory / f"traces-{process}.jsonl")
    return _in_batches(FileSpanExporter(stream=cast("IO[str]", lines)))


def _metric_files(directory: Path, process: str, interval_s: float) -> MetricReader:
    from opentelemetry.exporter.otlp.json.file.metric_exporter import FileMetricExporter

    lines = RotatingLines(directory / f"metrics-{process}.jsonl")
    exporter = FileMetricExporter(stream=cast("IO[str]", lines))
    return PeriodicExportingMetricReader(exporter, interval_s * 1_000)


def _span_endpoint(endpoint: str) -> BatchSpanProcessor:
    from shared.telemetry.collector import span_exporter

    return _in_batches(span_exporter(endpoint, _OTLP_TIMEOUT_S))


def _in_batches(exporter: SpanExporter) -> BatchSpanProcessor:
    """Every limit is said: of the environment's, two may contradict each other, and no process would start."""
    return BatchSpanProcessor(
        exporter,
        schedule_delay_millis=_SPANS_DELAY_MS,
        max_queue_size=_SPANS_WAITING_MAX,
        max_export_batch_size=_SPANS_AT_ONCE_MAX,
        export_timeout_millis=_OTLP_TIMEOUT_S * 1_000,
    )


def _prometheus_reader() -> MetricReader:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader

    return PrometheusMetricReader()


def prometheus_page() -> tuple[bytes, str]:
    """Every metric of this process in Prometheus's text format, and that format's content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return generate_latest(), CONTENT_TYPE_LATEST
