"""The last stage: who is put aside, marked or given back, with what, and whose receipt is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import structs

from shared.broker.base import Delivery
from shared.consuming.batch import Batch, Status, Work
from shared.consuming.claiming import Claiming
from shared.consuming.finishing import Finishing
from shared.consuming.subscriber import PutAside
from shared.dead_letter.headers import LETTER_ID, REDRIVE, Kind
from shared.dead_letter.sender import DeadLetterSender
from shared.errors import AttemptsExhaustedError, BusinessError, TransientError, UndecodableError
from shared.event import Event
from shared.failpoints import FailPoints
from tests.unit.stages import DEAD, DONE, RETRIED, batch_of, statuses

LETTER = "0197a2f0-0000-7000-8000-000000000001"


class Letters(DeadLetterSender):
    """Confirms letters as the kind that it is told, by their position, and takes note of them."""

    def __init__(self, kinds: dict[str, Kind | None]) -> None:
        self.kinds = kinds
        self.sent: list[tuple[str, Exception, int]] = []
        self.receipts: list[str] = []
        self.unconfirmed: set[str] = set()

    async def put_aside(self, delivery: Delivery, error: Exception, attempts: int) -> Kind | None:
        self.sent.append((delivery.position, error, attempts))
        return self.kinds.get(delivery.position, Kind.FAILED)

    async def send_receipt(self, delivery: Delivery) -> bool:
        self.receipts.append(delivery.position)
        return delivery.position not in self.unconfirmed


class Noted(Claiming):
    """Takes note of what is marked or given back."""

    def __init__(self) -> None:
        self.did: list[tuple[str, str]] = []

    async def mark_done(self, works: Sequence[Work]) -> None:
        self.did += [("done", work.envelope.id) for work in works]

    async def give_back(self, works: Sequence[Work], *, forget: bool = False) -> None:
        self.did += [("forget" if forget else "give back", work.envelope.id) for work in works]


class Units:
    """Opens units of work that know their number."""

    begun = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[int]:
        self.begun += 1
        yield self.begun


class Stage(Finishing):
    """With all of what it stands on."""

    def __init__(
        self,
        kinds: dict[str, Kind | None] | None = None,
        *,
        record: PutAside | None = None,
        fail_points: FailPoints | None = None,
    ) -> None:
        self.letters, self.claims, units = Letters(kinds or {}), Noted(), Units()
        given: Any = units
        super().__init__(self.letters, self.claims, fail_points, units=given, record=record)


def decided(batch: Batch, *decisions: Status | None) -> list[Work]:
    works = list(batch.works.values())
    for work, status in zip(works, decisions, strict=True):
        work.status = status
    return works


async def test_each_event_is_finished_once_by_what_became_of_it() -> None:
    stage, batch = Stage(), batch_of(*"abcdef")
    works = decided(batch, DONE, Status.DUPLICATE, RETRIED, DEAD, Status.DELAYED, None)
    for work in works[3:5]:
        work.error = BusinessError("no")
    for _ in range(2):
        await stage.finish(works)
    assert [position for position, _, _ in stage.letters.sent] == ["thing#3", "thing#4"]
    assert stage.claims.did == [
        ("done", "0"),
        ("done", "1"),
        ("give back", "2"),
        ("forget", "3"),
        ("forget", "4"),
    ]
    assert [work.finished for work in works] == [True] * 5 + [False], "nothing is decided about the last"


async def test_a_letter_has_the_newest_delivery_the_reason_and_the_larger_count_of_attempts() -> None:
    stage, batch = Stage(), batch_of("a", "b")
    taken_up, ran = decided(batch, DEAD, DEAD)
    [first] = taken_up.deliveries
    taken_up.deliveries += [
        structs.replace(first, headers={REDRIVE: "10"}, position="thing#newest"),
        structs.replace(first, headers={REDRIVE: "9"}, position="thing#newer"),
    ]
    taken_up.attempt, taken_up.runs, taken_up.error = 4, 1, BusinessError("no")
    ran.attempt, ran.runs = 1, 3
    await stage.finish([taken_up, ran])
    (position, error, attempts), (_, unknown, runs) = stage.letters.sent
    assert (position, error, attempts) == ("thing#newest", taken_up.error, 4)
    assert (type(unknown), str(unknown), runs) == (AttemptsExhaustedError, "no reason recorded", 3)


async def test_what_the_broker_says_of_a_letter_is_what_became_of_its_event() -> None:
    stage = Stage({"thing#0": Kind.FAILED, "thing#1": Kind.DELAYED, "thing#2": None})
    batch = batch_of("a", "b", "c")
    await stage.finish(decided(batch, DEAD, DEAD, DEAD))
    assert statuses(batch) == [DEAD, Status.DELAYED, RETRIED]
    assert stage.claims.did == [("give back", "2"), ("forget", "0"), ("forget", "1")]


async def test_what_could_not_be_read_is_put_aside_as_tried_once() -> None:
    stage, batch = Stage({"thing#1": None}), batch_of("a", "b")
    batch.works.clear()
    reasons = [UndecodableError("not JSON"), UndecodableError("too large")]
    batch.rejected = list(zip(batch.deliveries, reasons, strict=True))
    await stage.reject(batch)
    assert stage.letters.sent == [("thing#0", reasons[0], 1), ("thing#1", reasons[1], 1)]
    assert batch.outcome() == [DEAD, RETRIED]


async def test_the_subscriber_is_told_of_its_letters_but_not_of_what_is_only_delayed() -> None:
    told: list[tuple[str, Exception, object]] = []

    async def record(event: Event[Any], error: Exception, uow: object) -> None:
        told.append((event.id, error, uow))
        if event.id == "2":
            raise planted

    planted, no = TransientError("planted"), BusinessError("no")
    stage, batch = Stage({"thing#1": Kind.DELAYED}, record=record), batch_of(*"abcd")
    works = decided(batch, DEAD, DEAD, DEAD, DEAD)
    for work in works[:3]:
        work.error = no
    await stage.finish(works)
    assert [(name, uow) for name, _, uow in told] == [("0", 1), ("2", 2), ("3", 3)], "a transaction for each"
    assert [str(error) for _, error, _ in told] == ["no", "no", "no reason recorded"]
    assert statuses(batch) == [DEAD, Status.DELAYED, RETRIED, DEAD], "it comes again, to be told then"
    assert works[2].error is planted


@pytest.mark.parametrize(("status", "reached"), [(DONE, True), (Status.DUPLICATE, False), (RETRIED, False)])
async def test_the_place_behind_the_commit_is_where_something_was_committed(status: Status, reached: bool) -> None:
    stage = Stage(fail_points=FailPoints.told("pipeline.after_commit=raise-transient"))
    works = decided(batch_of("a"), status)
    if not reached:
        await stage.finish(works)
        return
    with pytest.raises(TransientError, match="after_commit"):
        await stage.finish(works)
    assert stage.claims.did == [], "killed there, nothing is marked"


async def test_a_letter_that_was_given_back_gets_its_receipt_once_its_effect_is_recorded() -> None:
    batch, stage = batch_of(*"abcdefg"), Stage()
    works = decided(batch, DONE, Status.DUPLICATE, RETRIED, DEAD, DONE, DONE, None)
    strangers, ignored = works[4].deliveries[0], works[6].deliveries[0]
    for delivery in batch.deliveries:
        delivery.headers = {LETTER_ID: LETTER}
    strangers.headers = {LETTER_ID: "somebody else's"}
    works[5].deliveries[0].headers = {}
    del batch.works["/tests", "6"]
    batch.statuses[id(ignored)] = Status.IGNORED
    batch.close()
    stage.letters.unconfirmed = {"thing#1"}
    await stage.send_receipts(batch)
    assert stage.letters.receipts == ["thing#0", "thing#1", "thing#6"]
    assert batch.outcome() == [DONE, RETRIED, RETRIED, DEAD, DONE, DONE, Status.IGNORED], "one is not confirmed"
