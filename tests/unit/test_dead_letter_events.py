"""How the dead-letter service reads what is in a dead-letter place: whatever is written there, it is a letter."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import orjson
import pytest

from services.dead_letter import events
from services.dead_letter.domain import Cause
from services.dead_letter.events import Received
from shared.broker.base import Delivery, Subscription
from shared.dead_letter import headers as dead_letter
from shared.envelope import EVENT_BYTES_MAX

LETTER = UUID("0198c0de-0000-7000-8000-000000000001")
SUBSCRIPTION = Subscription(channel="order", subscriber="mail", types=frozenset())


def read(body: bytes, /, **headers: str) -> Received:
    """`error_type="X"` is the header `tandem-error-type`."""
    named = {f"tandem-{name.replace('_', '-')}": text for name, text in headers.items()}
    return events.read(SUBSCRIPTION, Delivery(body, named, "order", None, False, "order#1", None))


def cause_of(**headers: str) -> Cause:
    cause = read(b"no event", **headers).cause
    assert cause is not None
    return cause


@pytest.mark.parametrize("long", ["x", "\x00", "\U0001f600"])
def test_of_a_cause_no_more_is_kept_than_a_subscriber_of_ours_tells(long: str) -> None:
    """Of a message its beginning, of a stack its end."""
    told = cause_of(
        error_type="T" + long * 100_000, error_message="M" + long * 100_000, error_stack=long * 100_000 + "S"
    )
    assert (told.error_type[0], len(told.error_type)) == ("T", dead_letter.ERROR_TYPE_CHARACTERS_MAX)
    assert (told.error_message[0], len(told.error_message)) == ("M", dead_letter.ERROR_MESSAGE_CHARACTERS_MAX)
    assert (told.error_stack[-1], len(told.error_stack)) == ("S", dead_letter.ERROR_STACK_CHARACTERS_MAX)


def test_what_is_too_long_for_an_event_is_not_unpacked_to_see_what_it_is() -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/x", "type": "thing.happened", "data": []}
    assert read(orjson.dumps(event)).type == "thing.happened"
    assert read(orjson.dumps(event) + b" " * EVENT_BYTES_MAX).type is None


TOO_EARLY, TOO_LATE = "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00"
"""In UTC no calendar has them."""


@pytest.mark.parametrize(
    ("told", "due_at"),
    [
        (TOO_EARLY, None),
        (TOO_LATE, None),
        ("0001-01-01T00:00:00+00:00", datetime.min.replace(tzinfo=UTC)),
        ("2026-11-25T12:00:00", datetime(2026, 11, 25, 12, tzinfo=UTC)),
        ("2026-11-25T12:00:00+02:00", datetime(2026, 11, 25, 10, tzinfo=UTC)),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_time_that_no_calendar_has_is_none(told: str, due_at: datetime | None) -> None:
    assert cause_of(kind="delayed", due_at=told).due_at == due_at


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        ("7", 7),
        ("999999999", 999_999_999),
        ("2000000000", 2_000_000_000),
        ("2000000001", 0),
        ("9" * 5_000, 0),
        ("-1", 0),
        ("٣", 0),
        ("1e3", 0),
    ],
)
def test_a_count_that_four_bytes_do_not_hold_is_none(told: str, counted: int) -> None:
    received = read(b"no event", attempts=told, delays=told, redrive=told)
    assert received.cause is not None
    assert (received.cause.attempts, received.cause.delays, received.redrive) == (counted, counted, counted)


def test_of_what_cannot_be_stored_the_bytes_are_kept_and_which_letter_it_is() -> None:
    given = {
        dead_letter.LETTER_ID: str(LETTER),
        dead_letter.REDRIVE: "3",
        "their-own": "x",
        "tandem-attempts": "7",
    }
    delivery = Delivery(b"body", given, "order", "key", False, "order#1", None)
    kept = events.unstorable(SUBSCRIPTION, delivery)
    assert (kept.letter_id, kept.redrive, kept.body, kept.whole) == (LETTER, 3, b"body", False)
    assert kept.cause is not None
    assert (kept.cause.error_type, kept.headers, kept.key) == ("UnknownError", {}, None)
