"""A message of a stranger on its way through the dead-letter place, the service that keeps it and back: the same
headers in the same order, with their types and bytes, and the same properties; what cannot be kept is said."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import aio_pika
import pytest
from aiokafka import AIOKafkaConsumer
from aiormq import spec

from shared.broker.base import PROPERTIES_LEFT_OUT
from shared.broker.kafka.topics import retry_topic
from shared.dead_letter.headers import is_own
from tests.conformance.servers_seen import publish_amqp_properties, publish_kafka
from tests.integration.letters import letters_of
from tests.integration.world import TYPE, World

HEADERS: list[tuple[str, bytes | None]] = [
    ("b", b"\xff\xfe\x00\x01"),
    ("d", b"1"),
    ("z", b""),
    ("d", b"2"),
    ("n", None),
    ("nul", b"\x00"),
    ("a", "\u00e4".encode()),
]
KEY = b"\xffkey"


@pytest.mark.timeout(180)
async def test_kafkas_headers_are_the_same_after_a_redrive(kafka_world: World) -> None:
    await kafka_world.publisher()
    topic, bodies = f"{kafka_world.channel}-events", [b"no event", None]
    await publish_kafka(kafka_world.runtime, topic, [(KEY, body, HEADERS) for body in bodies])
    async with letters_of(kafka_world, redrive_interval_s=600) as letters:
        async with kafka_world.consumer():
            rows = await letters.until(len(bodies), "pending")
        shown = [(await letters.get(f"/dead-letters/{row['id']}"))["sent"] for row in rows]
        assert (await letters.post("/dead-letters/redrive", {"filter": {}})).status_code == 202
        await letters.until(len(bodies), "redriven")
    retry = AIOKafkaConsumer(
        retry_topic(kafka_world.subscription, ""),
        bootstrap_servers=kafka_world.settings().kafka_bootstrap,
        auto_offset_reset="earliest",
    )
    async with retry:
        back = [await retry.getone() for _ in bodies]
    assert {(record.key, record.value) for record in back} == {(KEY, body) for body in bodies}
    for record in back:
        assert [header for header in record.headers if not is_own(header[0])] == HEADERS
    assert [sent["body_is_null"] for sent in shown] == [False, True]
    for sent in shown:
        headers = [(header["name"], header["type"], header["value"]) for header in sent["headers"]]
        assert [name for name, _, _ in headers] == [name for name, _ in HEADERS]
        assert headers[0] == ("b", "bytes", base64.b64encode(b"\xff\xfe\x00\x01").decode())
        assert (headers[4], headers[5]) == (("n", "null", None), ("nul", "text", "\x00"))


TABLE: dict[str, Any] = {
    "int": 70_000,
    "small": 3,
    "true": True,
    "at": datetime(2026, 11, 25, 12, tzinfo=UTC),
    "decimal": Decimal("1.50"),
    "nothing": None,
    "binary": bytearray(b"\xff\x00"),
    "nested": {"list": [1, "two", {"three": False}]},
    "text": "\u00e4",
}
PROPERTIES: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "gzip",
    "correlation_id": "c",
    "message_id": "m",
    "priority": 3,
    "reply_to": "r",
    "timestamp": datetime(2026, 11, 25, tzinfo=UTC),
    "message_type": "t",
    "app_id": "a",
}


@pytest.mark.timeout(180)
async def test_rabbitmqs_headers_and_properties_are_the_same_after_a_redrive(rabbit_world: World) -> None:
    """But for the time to live: a letter must not expire. Two with one message id go back each for itself."""
    await rabbit_world.publisher()
    queue = rabbit_world.subscription.queue
    properties = spec.Basic.Properties(headers=dict(TABLE), delivery_mode=2, expiration="600000", **PROPERTIES)
    body = b"\x1f\x8b no event"
    await publish_amqp_properties(
        rabbit_world.runtime, f"{rabbit_world.channel}.events", TYPE, [(body, properties)] * 2
    )
    async with letters_of(rabbit_world, redrive_interval_s=600) as letters:
        async with rabbit_world.consumer():
            rows = await letters.until(2, "pending")
        shown = await letters.get(f"/dead-letters/{rows[0]['id']}")
        assert (await letters.post("/dead-letters/redrive", {"filter": {}})).status_code == 202
        await letters.until(2, "redriven")
    async with await aio_pika.connect(rabbit_world.runtime.server_urls()["rabbit"]) as connection:
        source = await (await connection.channel()).get_queue(queue)
        async with source.iterator(timeout=60) as taken:
            back = [await anext(taken) for _ in rows]
            for raw in back:
                await raw.ack()
    for raw in back:
        assert {name: value for name, value in raw.headers.items() if not is_own(name)} == TABLE
        names = {name: "type" if name == "message_type" else name for name in PROPERTIES}
        assert {name: getattr(raw, here) for name, here in names.items()} == PROPERTIES
        assert (raw.body, raw.expiration) == (body, None)
    types = {header["name"]: header["type"] for header in shown["sent"]["headers"]}
    assert types == {
        "int": "int32", "small": "int8", "true": "boolean", "at": "timestamp", "decimal": "decimal",
        "nothing": "null", "binary": "bytes", "nested": "table", "text": "text",
    }  # fmt: skip
    assert shown["sent"]["properties"]["priority"] == 3
    assert shown["headers"][PROPERTIES_LEFT_OUT] == "expiration=600000"
