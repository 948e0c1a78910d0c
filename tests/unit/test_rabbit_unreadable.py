"""The AMQP codec reads what RabbitMQ lets pass; the replaced decoders are where the codec looks for them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pamqp import frame
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from shared.broker.rabbit.unreadable import read_what_is_not_utf8
from shared.broker.unreadable import UNREADABLE
from tests.conformance.servers_seen import BadName, RawProperties


@pytest.fixture(autouse=True)
def _replaced() -> None:
    read_what_is_not_utf8()


def received(properties: Basic.Properties) -> Any:
    data = frame.marshal(ContentHeader(body_size=1, properties=properties), 1)
    return frame.unmarshal(data)[2].properties  # type: ignore[union-attr]


def test_names_and_properties_that_are_not_utf8_are_escaped() -> None:
    got = received(Basic.Properties(app_id=BadName("app"), headers={BadName("a"): {BadName("b"): "c"}, "d": 1}))
    assert got.app_id == "\\xff\\xfeapp"
    assert got.headers == {"\\xff\\xfea": {"\\xff\\xfeb": "c"}, "d": 1}


def test_the_names_that_a_delivery_comes_with_are_escaped() -> None:
    deliver = Basic.Deliver("tag", 1, False, "exchange", BadName("key"))
    assert frame.unmarshal(frame.marshal(deliver, 1))[2].routing_key == "\\xff\\xfekey"  # type: ignore[union-attr]


def test_what_was_readable_is_read_as_before() -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    sent = Basic.Properties(app_id="äpp", timestamp=now, headers={"ä": "ö", "raw": bytearray(b"\xff"), "at": now})
    got = received(sent)
    assert (got.app_id, got.timestamp) == ("äpp", now)
    assert got.headers == {"ä": "ö", "raw": b"\xff", "at": now}


def test_a_time_that_no_calendar_has_is_left_out() -> None:
    assert received(RawProperties("timestamp", b"\x7f" * 8)).timestamp is None
    entry = b"\x01tT" + b"\x7f" * 8
    assert received(RawProperties("headers", len(entry).to_bytes(4, "big") + entry)).headers == {"t": None}


def test_headers_that_cannot_be_read_are_named_in_their_place() -> None:
    value = b"V"
    for _ in range(5_000):
        value = b"A" + len(value).to_bytes(4, "big") + value
    table = b"\x01d" + value
    got = received(RawProperties("headers", len(table).to_bytes(4, "big") + table))
    assert list(got.headers) == [UNREADABLE]
    assert "RecursionError" in got.headers[UNREADABLE]
