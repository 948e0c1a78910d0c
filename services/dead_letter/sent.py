"""How a message was sent, as it is kept with its letter and shown."""

from __future__ import annotations

import base64
from typing import Any

from pydantic import BaseModel, Field

from shared.broker import Header, Sent


class HeaderView(BaseModel):
    """A header: its value, and how that is to be read."""

    name: str
    type: str = Field(
        examples=["text"],
        description="`text`, `bytes` (base64), `null`; and other types of AMQP: `int32`, `boolean`, `table`, …",
    )
    value: Any


class SentView(BaseModel):
    """A message exactly as it was sent, beside its body."""

    headers: list[HeaderView] = Field(description="In order, repeated ones too.")
    properties: dict[str, str | int] = Field(description="AMQP's.")
    key: str | None = Field(description="Kafka's, in base64.")
    body_is_null: bool = Field(description="On Kafka a body may be absent, which is not the same as empty.")


def to_json(sent: Sent | None) -> dict[str, Any] | None:
    """The object that is kept; that of `SentView`."""
    if sent is None:
        return None
    return {
        "headers": [{"name": h.name, "type": h.type, "value": h.value} for h in sent.headers],
        "properties": dict(sent.properties),
        "key": None if sent.key is None else base64.b64encode(sent.key).decode(),
        "body_is_null": sent.body_is_null,
    }


def from_json(kept: dict[str, Any] | None) -> Sent | None:
    """None for a letter that an earlier version has kept."""
    if kept is None:
        return None
    return Sent(
        headers=[Header(**header) for header in kept["headers"]],
        properties=kept["properties"],
        key=None if kept["key"] is None else base64.b64decode(kept["key"]),
        body_is_null=kept["body_is_null"],
    )
