"""Traces, metrics and logs."""

from shared.telemetry import logs
from shared.telemetry.gauges import Ask, Gauges, queues_of
from shared.telemetry.measurements import Sample
from shared.telemetry.metrics import Metrics
from shared.telemetry.provider import prometheus_page
from shared.telemetry.spans import Created, Spans, current_trace_ids
from shared.telemetry.telemetry import Telemetry
from shared.telemetry.tracing import BatchInHand

__all__ = [
    "Ask",
    "BatchInHand",
    "Created",
    "Gauges",
    "Metrics",
    "Sample",
    "Spans",
    "Telemetry",
    "current_trace_ids",
    "logs",
    "prometheus_page",
    "queues_of",
]
