"""An event alone whose handler only tells: one statement, and its row in the inbox, in it, decides as ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert
from sqlalchemy.exc import IntegrityError

from shared.broker.base import Settlement
from shared.consuming.claims import Claim, ClaimState
from shared.errors import BusinessError, TransientError, UnavailableError
from shared.event import Event
from shared.failpoints import AFTER_COMMIT, AFTER_EFFECT, FailPoints
from shared.publishing import Leading
from shared.publishing.doorbell import Doorbell, Row
from shared.publishing.uow import UnitOfWork
from tests.unit.stages import Happened
from tests.unit.test_pipeline import Stages, delivered

ACK = Settlement.ACK
TABLE = Table("thing", MetaData(), Column("n", Integer))
INSERT, OTHER = insert(TABLE), insert(TABLE).values(n=2)
Handle = Callable[[Event[Happened], UnitOfWork], Awaitable[None]]


def violated(what: str) -> IntegrityError:
    return IntegrityError(what, None, Exception("duplicate key"))


class Alone(Stages):
    """Stages that take note of what is sent, in and out of transactions, and of how each unit ends."""

    def __init__(self, handle: Handle, **overrides: Any) -> None:
        self.handle = handle
        self.happened: list[str] = []
        self.broken: list[Exception] = []
        """What the next statements of the handler's raise."""
        self.before_sending: Callable[[], Awaitable[object]] | None = None
        super().__init__(**overrides)
        self.first_time("1", "2", "3", "4")

    async def _handle(self, event: Event[Happened], uow: UnitOfWork) -> None:
        self.happened.append("handled")
        await self.handle(event, uow)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        connection: Any = self
        begin = lambda: self.happened.append("transaction")  # noqa: E731
        uow = UnitOfWork(connection, "tests", self.spans, begin=begin)
        try:
            yield uow
            await uow.flush(last=True)
        except BaseException:
            self.happened.append("undone")
            raise
        self.happened.append("committed")

    async def execute(self, statement: Any, parameters: Any) -> Any:
        if self.before_sending is not None:
            await self.before_sending()
        is_fenced = "inbox_event_id" in parameters
        is_told = is_fenced and len(parameters) > 3
        self.happened.append("told, recorded" if is_told else "recorded" if is_fenced else "asked or told")
        if self.broken and (is_told or not is_fenced):
            raise self.broken.pop()
        return await self.inbox.execute(statement, parameters)

    async def run(self, *names: str) -> Sequence[Settlement]:
        return await self.pipeline(delivered(*names))


async def tell(event: Event[Happened], uow: UnitOfWork) -> None:
    uow.tell(INSERT, {"n": int(event.id)})


async def tell_and_publish(event: Event[Happened], uow: UnitOfWork) -> None:
    await tell(event, uow)
    uow.publish(Happened(), subject="s")


async def publish(_event: Event[Happened], uow: UnitOfWork) -> None:
    uow.publish(Happened(), subject="s")


async def read_and_tell(event: Event[Happened], uow: UnitOfWork) -> None:
    assert uow.reads is not None
    await tell(event, uow)


@pytest.mark.parametrize("handle", [tell, tell_and_publish, publish, read_and_tell])
async def test_what_tells_one_statement_is_one_statement_and_no_transaction_begins(handle: Handle) -> None:
    alone = Alone(handle)
    for name in ("1", "2"):
        alone.happened.clear()
        assert await alone.run(name) == [ACK]
        assert alone.happened == ["handled", "told, recorded", "committed"]


async def test_what_tells_nothing_is_its_row_in_the_inbox() -> None:
    async def ignore(_event: Event[Happened], _uow: UnitOfWork) -> None: ...

    alone = Alone(ignore)
    assert await alone.run("1") == [ACK]
    assert alone.happened == ["handled", "recorded", "committed"]


async def use_connection(event: Event[Happened], uow: UnitOfWork) -> None:
    assert uow.connection is not None
    await tell(event, uow)


async def flush_first(event: Event[Happened], uow: UnitOfWork) -> None:
    await tell(event, uow)
    await uow.flush()


async def tell_two(event: Event[Happened], uow: UnitOfWork) -> None:
    await tell(event, uow)
    uow.tell(OTHER, {})


@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        (use_connection, ["handled", "transaction", "told, recorded", "committed"]),
        (flush_first, ["handled", "transaction", "asked or told", "recorded", "committed"]),
        (tell_two, ["handled", "transaction", "told, recorded", "asked or told", "committed"]),
    ],
)
async def test_what_is_more_than_one_statement_begins_a_transaction_and_the_next_time_beside_its_claim(
    handle: Handle, expected: list[str]
) -> None:
    alone = Alone(handle)
    assert await alone.run("1") == [ACK]
    assert alone.happened == expected
    alone.happened.clear()
    assert await alone.run("2") == [ACK]
    assert alone.happened[:3] == ["transaction", "asked or told", "handled"], "the inbox first"


async def test_a_flush_of_nothing_sends_nothing() -> None:
    async def flush_and_tell(event: Event[Happened], uow: UnitOfWork) -> None:
        await uow.flush()
        await tell(event, uow)

    alone = Alone(flush_and_tell)
    assert await alone.run("1") == [ACK]
    assert alone.happened == ["handled", "told, recorded", "committed"]


async def test_where_relays_of_this_process_stand_by_they_are_handed_its_events() -> None:
    handed: list[int] = []
    leading, doorbell = Leading(1), Doorbell()

    def take(rows: Sequence[Row]) -> bool:
        handed.extend(row["position"] for row in rows)
        return True

    doorbell.open(take)

    class Leads(Alone):
        @asynccontextmanager
        async def begin(self) -> AsyncIterator[UnitOfWork]:
            connection: Any = self
            uow = UnitOfWork(connection, "tests", self.spans, leading=leading)
            yield uow
            await uow.flush(last=True)
            uow.committed()

        async def execute(self, statement: Any, parameters: Any) -> Any:
            await super().execute(statement, parameters)
            return SimpleNamespace(all=lambda: [([7],)])

    alone = Leads(tell_and_publish)
    with leading.of(0, doorbell):
        assert await alone.run("1") == [ACK]
    assert (alone.happened, handed) == (["handled", "told, recorded"], [7])


async def test_what_needs_none_any_more_is_one_statement_again() -> None:
    alone = Alone(tell_two)
    await alone.run("1")
    alone.handle = tell
    await alone.run("2")
    alone.happened.clear()
    assert await alone.run("3") == [ACK]
    assert alone.happened == ["handled", "told, recorded", "committed"]


async def test_a_duplicate_teaches_nothing_about_its_handler() -> None:
    alone = Alone(tell_two)
    await alone.run("1")
    alone.inbox.known = ["2"]
    await alone.run("2")
    alone.happened.clear()
    await alone.run("3")
    assert alone.happened[0] == "transaction"


async def test_nothing_is_sent_before_it_is_claimed() -> None:
    alone = Alone(tell)
    may_claim = asyncio.Event()
    claim = alone.claims.claim

    async def claim_later(*arguments: Any) -> list[Claim]:
        await may_claim.wait()
        return await claim(*arguments)

    alone.claims.claim = claim_later  # type: ignore[method-assign, assignment]
    running = asyncio.create_task(alone.run("1"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert alone.happened == []
    may_claim.set()
    assert await running == [ACK]


# -- what was here before


async def refuse(_event: Event[Happened], _uow: UnitOfWork) -> None:
    raise BusinessError("it is done already")


ASKED = ["transaction", "asked or told", "undone"]


@pytest.mark.parametrize(
    ("handle", "broken", "expected"),
    [
        (tell, [], ["handled", "told, recorded", "undone", *ASKED]),
        (tell, [violated("the handler's own")], ["handled", "told, recorded", "undone", *ASKED]),
        (tell, [TransientError("deadlock")], ["handled", "told, recorded", "undone", *ASKED]),
        (tell_two, [], ["handled", "transaction", "told, recorded", "undone", *ASKED]),
        (refuse, [], ["handled", "undone", *ASKED]),
    ],
)
async def test_whatever_fails_of_an_event_that_the_inbox_has_it_is_a_duplicate(
    handle: Handle, broken: list[Exception], expected: list[str]
) -> None:
    alone = Alone(handle)
    alone.inbox.known, alone.broken = ["1"], broken
    assert await alone.run("1") == [ACK]
    assert alone.happened == expected
    await asyncio.sleep(0)
    assert (alone.letters, alone.claims.marked) == ([], ["tester:1"])
    assert alone.counted.told[1][2] == {"duplicate": 1}


async def test_what_fails_of_a_new_event_is_its_error_as_ever_and_the_inbox_is_asked_first_from_then_on() -> None:
    alone = Alone(tell, handler_attempts_max=2)
    alone.broken = [KeyError("planted")]
    assert await alone.run("1") == [ACK]
    again = ["transaction", "asked or told", "handled", "asked or told", "committed"]
    assert alone.happened == ["handled", "told, recorded", "undone", *ASKED, *again]
    assert alone.letters == []


@pytest.mark.parametrize(("attempts_max", "calls"), [(1, 1), (3, 3)])
async def test_a_handler_that_fails_is_called_as_often_as_it_is_attempted(attempts_max: int, calls: int) -> None:
    async def fail(_event: Event[Happened], _uow: UnitOfWork) -> None:
        raise KeyError("planted")

    alone = Alone(fail, handler_attempts_max=attempts_max)
    assert await alone.run("1") == [ACK]
    assert alone.happened.count("handled") == calls
    assert alone.letters == [("thing#1", "KeyError")]


async def test_a_server_that_was_lost_with_the_statement_is_asked_first_when_it_is_back() -> None:
    """Whether it was committed nobody knows but the inbox."""
    alone = Alone(tell, outage_hold_s=60)
    alone.broken = [UnavailableError("planted")]

    async def commit_it() -> None:
        alone.inbox.known = ["1"]

    alone.before_sending = commit_it
    assert await alone.run("1") == [ACK]
    assert alone.happened == ["handled", "told, recorded", "undone", "transaction", "asked or told", "committed"]
    assert alone.counted.told[1][2] == {"duplicate": 1}


async def test_an_inbox_that_cannot_be_asked_is_what_the_event_waits_for() -> None:
    alone = Alone(refuse, outage_hold_s=60)

    async def be_lost() -> None:
        alone.before_sending = None
        raise UnavailableError("planted")

    alone.before_sending = be_lost
    assert await alone.run("1") == [ACK]
    assert alone.letters == [("thing#1", "BusinessError")]
    assert alone.happened.count("handled") == 2, "and no dead letter before the inbox was asked"


@pytest.mark.parametrize("why", ["redelivered", "taken up before", "effects outside", "several"])
async def test_what_may_have_been_here_and_what_is_not_alone_asks_the_inbox_first(why: str) -> None:
    alone = Alone(tell, outside_effects=why == "effects outside")
    deliveries = delivered("1", "2") if why == "several" else delivered("1")
    deliveries[0].redelivered = why == "redelivered"
    if why == "taken up before":
        alone.claims.answers["1"] = Claim(ClaimState.NEW, 2)
    assert await alone.pipeline(deliveries) == [ACK] * len(deliveries)
    had = ["undone"] if why == "taken up before" else []  # a connection, beside the claim
    assert alone.happened[: len(had) + 3] == [*had, "transaction", "asked or told", "handled"]


@pytest.mark.parametrize("needing", [False, True])
async def test_the_limit_of_a_handler_does_not_cut_off_what_would_be_committed_later(needing: bool) -> None:
    alone = Alone(tell, handler_timeout_s=0.05)
    if needing:
        alone.pipeline._transaction._needing = {"thing.happened"}

    async def take_long() -> None:
        if "handled" in alone.happened:
            await asyncio.sleep(0.1)

    alone.before_sending = take_long
    assert await alone.run("1") == [ACK]
    assert (alone.letters == []) is not needing


async def test_only_the_place_behind_the_effect_has_what_was_told_sent_before_the_end() -> None:
    other = Alone(tell, failpoints="pipeline.after_commit=raise@2")
    await other.run("1")
    assert other.happened == ["handled", "told, recorded", "committed"]
    behind = Alone(tell, failpoints="pipeline.after_effect=raise@2")
    await behind.run("1")
    assert behind.happened == ["handled", "transaction", "asked or told", "recorded", "committed"]
    points = FailPoints.told("pipeline.after_effect=kill")
    assert points is not None
    assert (points.has(AFTER_EFFECT), points.has(AFTER_COMMIT)) == (True, False)
