"""Every OpenTelemetry name in one place: spans, metrics, and the trace ids that logs carry.

Names follow the OpenTelemetry semantic conventions 1.37 for messaging (in development there; pinned here).
One trace leads from the HTTP request to the last effect: the request's span → `create` (its context is the
event's `traceparent`) → `send` in the relay and `process` in each subscriber. A batch has a span of its own,
joined to its events' spans by links, since it belongs to many traces at once. No payload enters a span.

Unsampled events cost nothing: their spans are not even started.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Histogram, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from uuid_utils import uuid7

from shared.broker.base import Subscription, destination_name
from shared.envelope import Envelope
from shared.settings import Settings
from shared.telemetry.measurements import METRICS, Measurements

SEMCONV_SCHEMA = "https://opentelemetry.io/schemas/1.37.0"
_DURATION_BUCKETS_S = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
)  # the conventions' own
_LINKS_MAX = 128  # the SDK's own limit per span; the other spans of the batch still link to it


@dataclass(frozen=True, slots=True)
class Created:
    """A new event's id and the trace context that it carries, None when there is none."""

    event_id: str
    traceparent: str | None


def is_sampled(traceparent: str | None) -> bool:
    """Whether a W3C `traceparent` says that its trace is recorded."""
    return traceparent is not None and traceparent[-2:] == "01"


def _parse(traceparent: str | None) -> SpanContext | None:
    """The remote span that a W3C Trace Context `traceparent` names; None when absent or malformed."""
    try:
        version, trace_id, span_id, flags = (traceparent or "").split("-")
        context = SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
        )
    except ValueError:
        return None
    return context if context.is_valid and version == "00" else None


def _format(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def _links(traceparents: Sequence[str | None]) -> list[Link]:
    contexts = (_parse(traceparent) for traceparent in traceparents if is_sampled(traceparent))
    return [Link(context) for context in contexts if context is not None][:_LINKS_MAX]


def current_trace_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the running span for a log line; empty outside a span."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


class Telemetry:
    """One process's tracer and meters. Spans go to OTLP JSON-lines files, to an OTLP endpoint, or nowhere."""

    def __init__(self, settings: Settings, service: str, process: str | None = None) -> None:
        process = process or service
        resource = Resource.create(
            {"service.name": service, "service.instance.id": f"{process}-{os.getpid()}"}, SEMCONV_SCHEMA
        )
        self.messaging_system = {"rabbit": "rabbitmq", "kafka": "kafka"}[settings.broker]
        self._broker = settings.broker
        self._tracers = TracerProvider(
            resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio))
        )
        readers: list[MetricReader] = [_prometheus_reader()]
        if settings.otlp_dir is not None:
            self._add_file_exporters(settings.otlp_dir, process, readers, settings.metrics_interval_s)
        if settings.otlp_endpoint is not None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            endpoint = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
            self._tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
        self.meters = MeterProvider(metric_readers=readers, resource=resource)
        self._tracer = self._tracers.get_tracer("tandem", schema_url=SEMCONV_SCHEMA)
        meter = self.meters.get_meter("tandem", schema_url=SEMCONV_SCHEMA)
        self._sent = meter.create_counter("messaging.client.sent.messages", "{message}")
        self._consumed = meter.create_counter("messaging.client.consumed.messages", "{message}")
        self._send_duration = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "One published batch, until confirmed",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS_S,
        )
        self._process_duration: Histogram = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "One batch's way through the pipeline, by queue and status",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS_S,
        )
        self._claims = meter.create_counter("tandem.claims", "{claim}", "Redis claims by outcome")
        self.measurements = Measurements()
        for name, (unit, description) in METRICS.items():
            meter.create_observable_gauge(name, [partial(self._observe, name)], unit, description)
        self._settlement_failures: Callable[[], Mapping[str, int]] = dict
        meter.create_observable_counter(
            "tandem.settlement.failures",
            [self._observe_settlement_failures],
            "{message}",
            "Settlements that the broker refused or never got; these messages come again",
        )
        self._breaker_state = meter.create_gauge(
            "tandem.breaker.state", "1", "Circuit breaker: 0 closed, 1 half-open, 2 open"
        )

    def _add_file_exporters(
        self, directory: Path, process: str, readers: list[MetricReader], metrics_interval_s: float
    ) -> None:
        from opentelemetry.exporter.otlp.json.file.metric_exporter import FileMetricExporter
        from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter

        directory.mkdir(parents=True, exist_ok=True)
        self._tracers.add_span_processor(
            BatchSpanProcessor(
                FileSpanExporter(directory / f"traces-{process}.jsonl"),
                schedule_delay_millis=500,
                max_queue_size=8_192,
            )
        )
        exporter = FileMetricExporter(directory / f"metrics-{process}.jsonl")
        readers.append(PeriodicExportingMetricReader(exporter, metrics_interval_s * 1_000))

    # -- HTTP

    def instrument_http(self, app: Any) -> None:
        """Give every request of a FastAPI application a server span (probes and metrics excepted)."""
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")  # the only switch that the library has
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._tracers,
            meter_provider=self.meters,
            excluded_urls="health/.*,metrics",
            exclude_spans=["send", "receive"],
        )

    # -- producing

    @contextmanager
    def create(
        self,
        channel: str,
        event_type: str,
        subject: str,
        cause: Envelope | None = None,
        link: str | None = None,
    ) -> Iterator[Created]:
        """The PRODUCER span whose context the new event carries; `subject` makes it findable."""
        event_id = str(uuid7())
        if cause is not None and cause.traceparent is not None and not is_sampled(cause.traceparent):
            yield Created(event_id, cause.traceparent)
            return
        destination = destination_name(self._broker, channel)
        span = self._tracer.start_span(f"create {destination}", kind=SpanKind.PRODUCER, links=_links([link]))
        if span.is_recording():
            span.set_attributes(
                {
                    "messaging.system": self.messaging_system,
                    "messaging.operation.name": "create",
                    "messaging.operation.type": "create",
                    "messaging.destination.name": destination,
                    "messaging.message.id": event_id,
                    "tandem.event.type": event_type,
                    "tandem.event.subject": subject,
                }
            )
        with trace.use_span(span, end_on_exit=True):
            yield Created(event_id, _format(span.get_span_context()))

    def sent(
        self,
        channel: str,
        events: Sequence[tuple[str, str, str | None]],
        started_ns: int,
        failed: frozenset[str] = frozenset(),
    ) -> None:
        """Record a published batch of (event id, event type, traceparent); `failed` holds unconfirmed ids."""
        destination = destination_name(self._broker, channel)
        ended_ns = time.time_ns()
        metric = {"messaging.system": self.messaging_system, "messaging.destination.name": destination}
        self._send_duration.record((ended_ns - started_ns) / 1e9, {**metric, "messaging.operation.name": "send"})
        self._sent.add(len(events) - len(failed), {**metric, "tandem.status": "confirmed"})
        if failed:
            self._sent.add(len(failed), {**metric, "tandem.status": "failed"})
        links = _links([traceparent for _, _, traceparent in events])
        if not links:
            return
        attributes = {**metric, "messaging.operation.name": "send", "messaging.operation.type": "send"}
        batch = self._tracer.start_span(
            f"send {destination} batch", otel_context.Context(), SpanKind.CLIENT,
            {**attributes, "messaging.batch.message_count": len(events)}, links, started_ns,
        )  # fmt: skip
        for event_id, event_type, traceparent in events:
            parent = _parse(traceparent) if is_sampled(traceparent) else None
            if parent is None:
                continue
            span = self._tracer.start_span(
                f"send {destination}",
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

    # -- consuming

    @contextmanager
    def process_batch(self, subscription: Subscription, events: Sequence[Envelope]) -> Iterator[Span | None]:
        """The batch's own span, linked to its sampled events; None when none of them is sampled."""
        links = _links([event.traceparent for event in events])
        if not links:
            yield None
            return
        destination = destination_name(self._broker, subscription.channel)
        attributes: dict[str, str | int] = {
            **self._process_attributes(subscription),
            "messaging.batch.message_count": len(events),
        }
        with self._tracer.start_as_current_span(
            f"process {destination} batch", otel_context.Context(), SpanKind.CONSUMER, attributes, links
        ) as span:
            yield span

    def start_process(self, subscription: Subscription, event: Envelope, batch: Span | None) -> Span | None:
        """One event's CONSUMER span, child of the span that created it; None when it is not sampled.

        Started when its handler starts; whoever started it ends it with `end_process` after the commit.
        """
        if event.traceparent is not None and not is_sampled(event.traceparent):
            return None
        parent = _parse(event.traceparent)
        if event.traceparent is not None and parent is None:
            return None
        base = otel_context.Context()
        context = base if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), base)
        attributes = {
            **self._process_attributes(subscription),
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

    def _process_attributes(self, subscription: Subscription) -> dict[str, str]:
        return {
            "messaging.system": self.messaging_system,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": destination_name(self._broker, subscription.channel),
            "messaging.consumer.group.name": subscription.subscriber,
        }

    def processed(self, subscription: Subscription, counts: Mapping[StrEnum, int], duration_s: float) -> None:
        """Count a batch's deliveries by status and record how long the batch took."""
        base = self._process_attributes(subscription) | {"tandem.queue": subscription.queue}
        for status, count in counts.items():
            self._consumed.add(count, {**base, "tandem.status": status.value})
            self._process_duration.record(duration_s, {**base, "tandem.status": status.value})

    def claimed(self, subscription: Subscription, outcomes: Mapping[StrEnum, int]) -> None:
        for outcome, count in outcomes.items():
            self._claims.add(count, {"tandem.queue": subscription.queue, "tandem.outcome": outcome.value})

    def without_claims(self, subscription: Subscription, count: int) -> None:
        """Redis is away: so many events go on under the inbox alone."""
        self._claims.add(count, {"tandem.queue": subscription.queue, "tandem.outcome": "unavailable"})

    # -- what is asked, or changes, from time to time

    def _observe(self, metric: str, _options: CallbackOptions) -> list[Observation]:
        return [Observation(sample.value, sample.attributes) for sample in self.measurements.of(metric)]

    def breaker(self, name: str, state: int) -> None:
        """0 closed, 1 half-open, 2 open."""
        self._breaker_state.set(state, {"tandem.breaker": name})

    def settlement_failures_from(self, source: Callable[[], Mapping[str, int]]) -> None:
        """Where to ask for the settlements that failed since the start, by queue."""
        self._settlement_failures = source

    def _observe_settlement_failures(self, _options: CallbackOptions) -> list[Observation]:
        return [
            Observation(count, {"tandem.queue": queue}) for queue, count in self._settlement_failures().items()
        ]

    def shutdown(self) -> None:
        """Flush what is waiting and stop; bounded by the exporters' own timeouts."""
        self._tracers.shutdown()
        self.meters.shutdown()


def _prometheus_reader() -> MetricReader:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader

    return PrometheusMetricReader()


def prometheus_page() -> tuple[bytes, str]:
    """Every metric of this process in Prometheus's text format, and that format's content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return generate_latest(), CONTENT_TYPE_LATEST
