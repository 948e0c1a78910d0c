"""How a record was sent, and how it is sent again, exactly: its key, and its headers, their order and bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from shared.broker.base import Delivery, Header, Sent
from shared.broker.kafka.unreadable import Record
from shared.envelope import CONTENT_TYPE

WireHeaders = list[tuple[str, bytes | None]]


def sent_as(record: Record) -> Sent:
    """How a record was sent."""
    return Sent(
        headers=[_header(name, value) for name, value in record.headers],
        key=record.key,
        body_is_null=record.value is None,
    )


def record_of(delivery: Delivery, added: Mapping[str, str]) -> tuple[bytes | None, bytes | None, WireHeaders]:
    """Key, value and headers of the record that the delivery is sent again as. Raises `ValueError` for what no
    encoding takes."""
    sent = delivery.as_sent()
    written: WireHeaders = [(name, text.encode()) for name, text in added.items()]
    if sent is None:
        texts = {"content-type": CONTENT_TYPE, **delivery.headers}
        own = [(name, text.encode()) for name, text in texts.items() if name not in added]
        return _key(delivery.key), delivery.body, [*own, *written]
    own_exactly = [(header.name, _value(header)) for header in sent.headers if header.name not in added]
    key = sent.key if sent.key is not None and delivery.key is not None else _key(delivery.key)
    # A record of neither key nor value is none that aiokafka sends: it gets an empty value.
    body = None if sent.body_is_null and not delivery.body and key is not None else delivery.body
    return key, body, [*own_exactly, *written]


def _key(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _header(name: str, value: bytes | None) -> Header:
    if value is None:
        return Header(name, "null", None)
    try:
        return Header(name, "text", value.decode())
    except UnicodeDecodeError:
        return Header(name, "bytes", base64.b64encode(value).decode())


def _value(header: Header) -> bytes | None:
    """What came by RabbitMQ has types that Kafka has not: it goes as the text of its value."""
    if header.type == "null":
        return None
    if header.type in ("bytes", "text-base64"):
        return base64.b64decode(header.value)
    return str(header.value).encode()
