"""Spans along an event's way, from their beginning until they are written or sent: here is what tracing costs.

`event_spans` are the spans, which a `recorder` begins; when they have ended they go, with the SDK's own, through a
`span_queue` to files (`span_lines`) or to a `collector` (`span_messages`).
"""

from shared.telemetry.tracing import traceparent
from shared.telemetry.tracing.event_spans import EventSpan, Shape
from shared.telemetry.tracing.recorder import Recorder, as_links, links_to, traceparent_of
from shared.telemetry.tracing.span_lines import SpanLines
from shared.telemetry.tracing.span_queue import SpanQueue

__all__ = [
    "EventSpan",
    "Recorder",
    "Shape",
    "SpanLines",
    "SpanQueue",
    "as_links",
    "collector",
    "links_to",
    "traceparent",
    "traceparent_of",
]
