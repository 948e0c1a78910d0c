"""What a subscriber takes, and what it reads: portions and rates, what is not for it, what nobody can read."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import pytest
from pydantic import BaseModel

from shared.broker.base import Delivery
from shared.consuming.batch import Status
from shared.consuming.intake import Intake
from shared.consuming.subscriber import Handler, Subscriber
from shared.dead_letter.headers import LETTER_ID
from shared.envelope import Envelope
from shared.errors import SchemaViolationError, UndecodableError, UnknownEventTypeError, UnknownSchemaError
from shared.event import Asked, EventData
from tests.unit.stages import HANDLER, Happened, on_happened, settings_with


def intake(*, outside_effects: bool = False, **overrides: Any) -> Intake:
    subscriber = Subscriber(
        "thing",
        "tester",
        (HANDLER,),
        ignores=frozenset({"thing.ignored"}),
        outside_effects=outside_effects,
        answers=True,
    )
    return Intake(subscriber, settings_with(**overrides))


def delivered(
    body: bytes | Envelope, headers: Mapping[str, str] | None = None, asked: Asked | None = None
) -> Delivery:
    sent = body if isinstance(body, bytes) else body.encode()
    return Delivery(sent, headers or {}, "thing", "k", False, "thing#1", None, asked=asked)


def event(event_type: str = "thing.happened", **attributes: Any) -> Envelope:
    return Envelope(**{"source": "/tests", "type": event_type, "data": {}, **attributes})


@pytest.mark.parametrize(
    ("outside_effects", "overrides", "batch_max", "in_flight_max"),
    [
        (False, {"batch_max": 1}, 64, 128),
        (False, {"batch_max": 1, "transactions_max": 1}, 1, 2),
        (False, {"batch_max": 1, "postgres_pool_max": 3}, 1, 2),
        (False, {"batch_max": 50}, 64, 128),
        (False, {"batch_max": 65}, 65, 130),
        (False, {"batch_max": 300}, 300, 600),
        (True, {"batch_max": 1}, 1, 2),
        (True, {"batch_max": 40}, 40, 80),
        (True, {"batch_max": 80}, 80, 100),
        (True, {"batch_max": 300}, 100, 100),
        (False, {"batch_max": 50, "rate_limit_per_s": "tester.thing=7.5"}, 7, 14),
        (False, {"batch_max": 70, "rate_limit_per_s": "tester.thing=1000"}, 70, 140),
        (False, {"batch_max": 70, "rate_limit_per_s": "tester.other=7,other.thing=7"}, 70, 140),
        (True, {"batch_max": 300, "rate_limit_per_s": "tester.thing=70"}, 70, 100),
    ],
)
def test_in_flight_are_two_batches_or_a_hundred_events_or_two_seconds_worth(
    outside_effects: bool, overrides: dict[str, Any], batch_max: int, in_flight_max: int
) -> None:
    subscription = intake(outside_effects=outside_effects, **overrides).subscription
    assert (subscription.batch_max, subscription.in_flight_max) == (batch_max, in_flight_max)
    assert subscription.queue == "tester.thing"
    assert (subscription.types, subscription.answers) == (frozenset({"thing.happened"}), True)


async def test_a_rate_is_so_many_a_second_and_every_event_counts() -> None:
    unlimited = intake()
    await unlimited.admit(1_000)
    limited = intake(rate_limit_per_s="tester.thing=3")
    limiter = limited._limiter
    assert limiter is not None
    assert (limiter.max_rate, limiter.time_period) == (3, 1)
    await limited.admit(2)
    assert limiter.has_capacity(1)
    assert not limiter.has_capacity(2)


def test_deliveries_of_one_event_are_gathered_and_what_is_not_for_us_is_told_apart() -> None:
    first, other_source = event(id="1"), event(id="1", source="/elsewhere")
    bodies: list[bytes | Envelope] = [
        first,
        event("thing.ignored"),
        other_source,
        first,
        event("thing.unheard_of"),
        b"{",
    ]
    deliveries = [delivered(body) for body in bodies]
    batch = intake().read(deliveries)
    assert batch.deliveries is deliveries
    assert {key: [deliveries.index(d) for d in work.deliveries] for key, work in batch.works.items()} == {
        ("/tests", "1"): [0, 0],  # the two are equal
        ("/elsewhere", "1"): [2],
    }
    assert [d is deliveries[3] for d in batch.works["/tests", "1"].deliveries] == [False, True]
    work = batch.works["/elsewhere", "1"]
    assert (work.handler, work.event.data, work.event.envelope) == (HANDLER, Happened(), work.envelope)
    assert batch.statuses == {id(deliveries[1]): Status.IGNORED}
    (unknown, why), (garbage, why_not) = batch.rejected
    assert (unknown is deliveries[4], garbage is deliveries[5]) == (True, True)
    assert isinstance(why, UnknownEventTypeError)
    assert str(why) == "tester.thing knows no thing.unheard_of"
    assert isinstance(why_not, UndecodableError)


def test_a_request_that_was_given_back_waits_for_longer_than_the_broker_says() -> None:
    asked = Asked("replies", "request-1", 5.0)
    plain, again, unasked = (
        delivered(event(), asked=asked),
        delivered(event(), {LETTER_ID: "a-letter"}, asked),
        delivered(event(), {LETTER_ID: "a-letter"}),
    )
    read = [work.event.asked for work in intake().read([plain, again, unasked]).works.values()]
    assert read == [asked, Asked("replies", "request-1", -inf), None]


class Counts(EventData):
    channel = "thing"
    event_type = "thing.counted"
    first: int
    second: int
    third: int
    fourth: int
    fifth: int
    sixth: int


class Place(BaseModel):
    street: str


class Moved(EventData):
    channel = "thing"
    event_type = "thing.moved"
    to: list[Place]


COUNTS = Handler(Counts, on_happened)


def missing(*names: str) -> str:
    return "; ".join(f"{name}: Field required" for name in names)


@pytest.mark.parametrize(
    ("attributes", "kind", "words"),
    [
        (
            {"dataschema": "urn:tandem:thing.counted:2"},
            UnknownSchemaError,
            "thing.counted with schema 'urn:tandem:thing.counted:2'",
        ),
        ({"data": b"\x00"}, SchemaViolationError, "thing.counted: data: its datacontenttype is not JSON's"),
        (
            {"data": 7},
            SchemaViolationError,
            "thing.counted: data: Input should be a valid dictionary or instance of Counts",
        ),
        (
            {"data": {"fourth": 4}},
            SchemaViolationError,
            f"thing.counted: {missing('first', 'second', 'third', 'fifth', 'sixth')}",
        ),
        (
            {},
            SchemaViolationError,
            f"thing.counted: {missing('first', 'second', 'third', 'fourth', 'fifth')}",
        ),
    ],
)
def test_data_that_is_not_the_handlers_is_refused_with_what_is_wrong(
    attributes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as refused:
        COUNTS.read(event("thing.counted", **attributes))
    assert str(refused.value) == words


def test_what_is_wrong_within_the_data_is_said_with_where_it_is() -> None:
    with pytest.raises(SchemaViolationError) as refused:
        Handler(Moved, on_happened).read(event("thing.moved", data={"to": [{"street": "A"}, {}]}))
    assert str(refused.value) == "thing.moved: to.1.street: Field required"
