"""How the dead-letter service reads what is in a dead-letter place: whatever is written there, it is a letter."""

from __future__ import annotations

import orjson
import pytest

from services.dead_letter import events
from services.dead_letter.domain import Cause
from services.dead_letter.events import Received
from shared.broker.base import Delivery, Subscription
from shared.dead_letter import headers as dead_letter
from shared.envelope import EVENT_BYTES_MAX

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
