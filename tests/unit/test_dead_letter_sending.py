"""What is added to a message that is put aside, and what is left out of one that is too large."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from msgspec import structs

from shared.broker.base import BODY_BYTES_MAX, Delivery, Header, Sent, Subscription
from shared.dead_letter import headers as dead_letter
from shared.dead_letter.headers import (
    KEY_BYTES_MAX,
    OWN_HEADERS,
    Kind,
    bounded,
    dead_letter_headers,
    headers_bytes,
    receipt_headers,
)
from shared.dead_letter.sender import DeadLetterSender
from shared.errors import BusinessError, PermanentError
from shared.settings import Settings

SUBSCRIPTION = Subscription(channel="order", subscriber="notification", types=frozenset({"order.placed"}))


def delivery(body: bytes = b"{}", headers: dict[str, str] | None = None) -> Delivery:
    return Delivery(
        body=body,
        headers=headers or {"own": "kept"},
        channel="order",
        key="k",
        redelivered=False,
        position="order-events/3@17",
        token=None,
    )


def test_a_dead_letter_says_where_it_is_from_and_why() -> None:
    nothing: dict[str, str] = {}
    with pytest.raises(KeyError) as raised:
        _ = nothing["x" * 5_000]
    headers = dead_letter_headers(SUBSCRIPTION, delivery(), raised.value, 3)
    assert headers[dead_letter.SUBSCRIBER] == "notification"
    assert headers[dead_letter.CHANNEL] == "order"
    assert headers[dead_letter.ERROR_TYPE] == "KeyError"
    assert headers[dead_letter.ATTEMPTS] == "3"
    assert headers[dead_letter.POSITION] == "order-events/3@17"
    assert "test_dead_letter_sending" in headers[dead_letter.ERROR_STACK]
    assert headers[dead_letter.FAILED_AT].endswith("+00:00")
    assert len(headers[dead_letter.ERROR_MESSAGE]) <= 1_000
    assert len(headers[dead_letter.ERROR_STACK]) <= 8_000


def test_a_letter_of_usual_size_stays_as_it_is() -> None:
    assert bounded(delivery()) == (delivery(), {})


def test_what_exceeds_every_limit_is_cut_and_says_so() -> None:
    cut, notes = bounded(delivery(b"x" * (BODY_BYTES_MAX + 1)))
    assert len(cut.body) == BODY_BYTES_MAX
    assert (cut.headers, notes) == ({"own": "kept"}, {dead_letter.BODY_CUT_FROM: str(BODY_BYTES_MAX + 1)})
    bare, notes = bounded(delivery(headers={f"h{n}": "ä" * 1_000 for n in range(30)}))
    assert (bare.headers, notes) == ({}, {dead_letter.HEADERS_LEFT_OUT: "30"})
    assert bare.body == b"{}"
    keyless, notes = bounded(structs.replace(delivery(), key="k" * (KEY_BYTES_MAX + 1)))
    assert (keyless.key, notes) == (None, {dead_letter.KEY_LEFT_OUT: str(KEY_BYTES_MAX + 1)})


def test_headers_are_counted_as_they_were_sent_and_what_else_was_sent_stays() -> None:
    """Of a name that comes a thousand times the text has one."""
    headers = [Header("same", "text", "x" * 1_000)] * 50
    sent = Sent(headers=headers, properties={"app_id": "a"}, key=b"\xff")
    letter, notes = bounded(structs.replace(delivery(headers={"same": "x" * 1_000}), sent=lambda _: sent))
    assert (letter.headers, notes) == ({}, {dead_letter.HEADERS_LEFT_OUT: "1"})
    assert letter.sent is not None
    assert letter.as_sent() == replace(sent, headers=())


def test_many_headers_are_too_many_however_short_they_are() -> None:
    """A frame of AMQP has room for some fourteen thousand of them, and none for ours."""
    _, notes = bounded(delivery(headers={f"{n:04}": "" for n in range(10_000)}))
    assert notes == {dead_letter.HEADERS_LEFT_OUT: "10000"}


@pytest.mark.parametrize("name", sorted(OWN_HEADERS))
@pytest.mark.parametrize("told", ["x" * 130_500, "9" * 130_500, f"2026-11-25T12:00:00.{'1' * 130_000}+00:00"])
def test_what_we_add_is_bounded_whatever_came_under_our_names(name: str, told: str) -> None:
    came = delivery(headers={name: told})
    error = BusinessError("\U0001f600" * 100_000)
    for added in (dead_letter_headers(SUBSCRIPTION, came, error, 1), receipt_headers(SUBSCRIPTION, came)):
        assert headers_bytes(added) < 48 * 1024
        assert UUID(added[dead_letter.LETTER_ID])


# -- what is added to a message that no limit of ours foresees


class PickyChannel:
    """Refuses for good what is larger than it takes, as a broker with limits of its own would."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.taken: list[tuple[Delivery, Mapping[str, str]]] = []

    async def publish_dead_letter(
        self, _subscription: Subscription, letter: Delivery, headers: Mapping[str, str]
    ) -> None:
        size = len(letter.body) + headers_bytes(letter.headers) + headers_bytes(headers)
        if size > self.bytes_max:
            raise PermanentError(f"{size} bytes are too many")
        self.taken.append((letter, headers))


async def at_once(action: Callable[[], Awaitable[None]]) -> None:
    await action()


@pytest.mark.parametrize(
    ("bytes_max", "left"),
    [
        (1_000_000, (200_000, ["own"], "k", {})),
        (201_500, (200_000, [], None, {dead_letter.HEADERS_LEFT_OUT: "1", dead_letter.KEY_LEFT_OUT: "1"})),
        (
            70_000,
            (
                65_536,
                [],
                None,
                {
                    dead_letter.HEADERS_LEFT_OUT: "1",
                    dead_letter.KEY_LEFT_OUT: "1",
                    dead_letter.BODY_CUT_FROM: "200000",
                },
            ),
        ),
    ],
)
async def test_what_a_broker_does_not_take_whole_is_put_aside_with_less_of_it_and_says_so(
    bytes_max: int, left: tuple[int, list[str], str | None, dict[str, str]]
) -> None:
    settings = Settings(
        broker="rabbit", http_port=1, postgres_dsn="postgresql://-", redis_url="redis://-", rabbit_url="amqp://-"
    )
    channel: Any = PickyChannel(bytes_max)
    sender = DeadLetterSender(settings, SUBSCRIPTION, channel, (), at_once)
    large = delivery(b"x" * 200_000, headers={"own": "y" * 2_000})
    assert await sender.put_aside(large, BusinessError("no"), 1) is Kind.FAILED
    [(letter, headers)] = channel.taken
    notes = {name: headers[name] for name in headers if "left-out" in name or "cut" in name}
    assert (len(letter.body), list(letter.headers), letter.key, notes) == left
