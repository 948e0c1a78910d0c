"""How a message was sent, and how it is sent again, exactly: headers of every type, and AMQP's properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aiormq import spec

from shared.broker.base import DEATHS, Header, Sent
from shared.broker.rabbit.arriving import Arrived
from shared.broker.rabbit.field_tables import read_table, write_table
from shared.broker.rabbit.unreadable import RawTable

DELIVERY_COUNTS = ("x-delivery-count", "x-acquired-count")
"""Headers that a quorum queue adds to a message it delivers again."""
PERSISTENT = 2

_ROUTING_HEADERS = {"CC": "original-cc", "BCC": "original-bcc"}
"""RabbitMQ routes by these: to others than the one whom the message is for."""
_SENT_AGAIN = (
    "content_type", "content_encoding", "priority", "correlation_id", "reply_to", "message_id", "timestamp",
    "type", "app_id",
)  # fmt: skip
_LEFT_OUT = ("expiration", "user_id", "cluster_id")
"""A letter must not expire, and RabbitMQ takes a user's id from that user alone."""
DIRECT_REPLY = "amq.rabbitmq.reply-to"
"""RabbitMQ takes it only from who waits for the answer."""


def sent_as(raw: Arrived, text: Mapping[str, str]) -> Sent:
    """How a message was sent; `text` are its headers where their bytes cannot be read."""
    told = raw.properties
    table = told.headers
    headers = read_table(table.raw) if isinstance(table, RawTable) else []
    if headers is None:
        headers = [Header(name, "text", value) for name, value in text.items()]
    properties = {name: getattr(told, name, None) for name in (*_SENT_AGAIN, *_LEFT_OUT)}
    properties["type"] = told.message_type
    properties["priority"] = told.priority or None  # 0 is what none means
    if isinstance(told.timestamp, datetime):
        properties["timestamp"] = int(told.timestamp.timestamp())
    return Sent(
        headers=[h for h in headers if h.name not in DELIVERY_COUNTS and not h.name.startswith(DEATHS)],
        properties={name: value for name, value in properties.items() if value not in (None, "")},
    )


def left_out(sent: Sent) -> str:
    """The properties that are not sent again, `expiration=60000`; empty where all are."""
    again = _properties_again(sent)
    return ", ".join(f"{name}={value}" for name, value in sent.properties.items() if name not in again)


def properties_of(sent: Sent, added: Mapping[str, str]) -> spec.Basic.Properties:
    """What the message is sent again with. Raises `ValueError` or `TypeError` for what AMQP cannot express."""
    headers = _headers(sent.headers, added)
    again = _properties_again(sent)
    at = again.pop("timestamp", None)
    again["message_type"] = again.pop("type", None)
    return spec.Basic.Properties(
        headers=RawTable({header.name: None for header in headers}, write_table(headers)),
        delivery_mode=PERSISTENT,
        timestamp=None if at is None else datetime.fromtimestamp(int(at), UTC),
        **again,
    )


def _headers(came: Sequence[Header], added: Mapping[str, str]) -> list[Header]:
    renamed = {_ROUTING_HEADERS.get(h.name, h.name): h for h in came}  # a table has each name once
    kept = [Header(name, h.type, h.value) for name, h in renamed.items() if name not in added]
    return [*kept, *(Header(name, "text", text) for name, text in added.items())]


def _properties_again(sent: Sent) -> dict[str, Any]:
    again = {name: value for name, value in sent.properties.items() if name in _SENT_AGAIN}
    if again.get("reply_to") == DIRECT_REPLY:
        del again["reply_to"]
    return again
