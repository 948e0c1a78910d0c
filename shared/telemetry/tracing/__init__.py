"""Spans along an event's way, from their beginning until they are written or sent: here is what tracing costs.

`event_spans` are the spans, which a `recorder` begins, and `span_batches` those of many events at once; when they
have ended they go, with the SDK's own, through a `span_queue` to files (`span_lines`) or to a `collector`
(`span_messages`).
"""

from shared.telemetry.tracing import traceparent
from shared.telemetry.tracing.event_spans import EventSpan, Shape
from shared.telemetry.tracing.recorder import (
    Recorder,
    as_links,
    links_to,
    links_to_parents,
    traceparent_of,
    unrecorded_span,
)
from shared.telemetry.tracing.span_batches import BatchInHand, SpanBatch, span_ids
from shared.telemetry.tracing.span_lines import SpanLines
from shared.telemetry.tracing.span_queue import SpanQueue

__all__ = [
    "BatchInHand",
    "EventSpan",
    "Recorder",
    "Shape",
    "SpanBatch",
    "SpanLines",
    "SpanQueue",
    "as_links",
    "collector",
    "links_to",
    "links_to_parents",
    "span_ids",
    "traceparent",
    "traceparent_of",
    "unrecorded_span",
]
