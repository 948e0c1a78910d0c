"""How a message was sent, and how it is sent again, exactly: headers of every type, and AMQP's properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from aio_pika.abc import AbstractIncomingMessage
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


def text_headers(raw: Arrived | AbstractIncomingMessage) -> Mapping[str, str]:
    """The headers that were sent, as text, whatever AMQP type they had; bytes that are not UTF-8 are escaped."""
    return _text_of(raw) if raw.headers else _of_content_type(raw.content_type)


@lru_cache(maxsize=64)
def _of_content_type(content_type: str | None) -> Mapping[str, str]:
    """The one property that is a header on Kafka."""
    return {"content-type": content_type} if content_type else {}


def _text_of(raw: Arrived | AbstractIncomingMessage) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw.headers.items():
        if name in DELIVERY_COUNTS:
            continue
        if isinstance(value, bytes | bytearray):
            headers[name] = value.decode("utf-8", "backslashreplace")
        else:
            headers[name] = value if isinstance(value, str) else str(value)
    return {**_of_content_type(raw.content_type), **headers}


def sent_as(raw: Arrived) -> Sent:
    """How a message was sent."""
    told = raw.properties
    table = told.headers
    headers = read_table(table.raw) if isinstance(table, RawTable) else []
    if headers is None:
        headers = [Header(name, "text", value) for name, value in text_headers(raw).items()]
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
