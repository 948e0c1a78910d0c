"""Rows of the outbox as events are written there, for events that no unit of work publishes."""

from __future__ import annotations

from shared.envelope import Envelope
from shared.publishing.outbox import shard_of


def outbox_row(channel: str, event: Envelope) -> dict[str, object]:
    """The row of one."""
    return {
        "shard": shard_of(event.key),
        "channel": channel,
        "type": event.type,
        "key": event.key,
        "event_id": event.id,
        "traceparent": event.traceparent,
        "body": event.encode(),
    }
