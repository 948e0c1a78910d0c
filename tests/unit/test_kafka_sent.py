"""A record that is sent again is one that the client sends."""

from __future__ import annotations

import pytest

from shared.broker.base import Delivery, Sent
from shared.broker.kafka.sent import record_of


@pytest.mark.parametrize(
    ("key", "body", "is_null", "again"),
    [
        (b"k", b"", True, (b"k", None)),
        (b"k", b"", False, (b"k", b"")),
        (None, b"x", False, (None, b"x")),
        (None, b"", True, (None, b"")),
        (None, b"", False, (None, b"")),
    ],
)
def test_a_record_has_its_key_and_value_again_and_never_neither(
    key: bytes | None, body: bytes, is_null: bool, again: tuple[bytes | None, bytes | None]
) -> None:
    """Of neither aiokafka makes no record at all: what cannot be sent would hold its partition."""
    delivery = Delivery(
        body=body,
        key=None if key is None else key.decode(),
        headers={},
        channel="t",
        redelivered=False,
        position="t/0@1",
        token=None,
        sent=lambda _: Sent(headers=[], key=key, body_is_null=is_null),
    )
    assert record_of(delivery, {})[:2] == again
