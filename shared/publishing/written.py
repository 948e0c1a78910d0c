"""What is written of a new event: a row of the outbox, with its final bytes, straight from its data.

In a process that takes as many requests as it can, the processor's caches hold little of what an event needs, and
each object and call costs some four times what it does in a loop. So its data becomes JSON once, without being a
dictionary first, and an envelope is made only for who asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orjson import Fragment

from shared.envelope import Envelope, encoded, time_now
from shared.event import EventData
from shared.publishing.outbox import shard_of
from shared.telemetry import Created


@dataclass(frozen=True, slots=True)
class Cause:
    """What an event follows from: another event, where it was one, in a trace and in a conversation."""

    event_id: str | None
    traceparent: str | None
    correlationid: str | None


class Published:
    """An event that is written down, to be published once that is committed."""

    __slots__ = ("_body", "id", "traceparent")

    def __init__(self, row: dict[str, Any]) -> None:
        """Of its row in the outbox."""
        self.id: str = row["event_id"]
        self.traceparent: str | None = row["traceparent"]
        self._body: bytes = row["body"]

    @property
    def envelope(self) -> Envelope:
        """All of it, as it will arrive."""
        return Envelope.decode(self._body)


def written(
    data: EventData, created: Created, cause: Cause, *, source: str, subject: str, key: str
) -> dict[str, Any]:
    """The row for `outbox.add_events`. Raises `EventTooLargeError`."""
    body = encoded(
        event_id=created.event_id,
        source=source,
        event_type=data.event_type,
        subject=subject,
        time=time_now(),
        dataschema=data.schema_uri(),
        partitionkey=key,
        traceparent=created.traceparent,
        correlationid=cause.correlationid or cause.event_id or created.event_id,
        causationid=cause.event_id,
        data=Fragment(data.__pydantic_serializer__.to_json(data)),
    )
    key = key or created.event_id
    return {
        "shard": shard_of(key),
        "channel": data.channel,
        "type": data.event_type,
        "key": key,
        "event_id": created.event_id,
        "traceparent": created.traceparent,
        "body": body,
    }
