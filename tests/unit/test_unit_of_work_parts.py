"""What a unit of work does for others: parts with rows of their own, jobs, and acts behind the commit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from sqlalchemy import text

from shared.envelope import Envelope
from shared.event import EventData
from shared.publishing import Leading
from shared.publishing.doorbell import Doorbell, Row
from shared.publishing.submitting import Firing, Options, Submitted
from shared.publishing.uow import UnitOfWork, UnitsOfWork
from shared.telemetry import Spans
from shared.telemetry.tracing.recorder import Recorder

FIRST, LAST = text("select 'first'"), text("select 'last'")
SPANS = Spans(Recorder(TraceIdRatioBased(0.0)), "kafka")
EVENT = Envelope(source="/tests", type="thing.happened", data=None)


class Connection:
    """Takes note of what it is sent, and with what."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.parameters: list[object] = []
        self.answer: list[tuple[object, ...]] = []

    async def execute(self, statement: object, parameters: object) -> Any:
        self.sent.append(statement)
        self.parameters.append(parameters)
        return SimpleNamespace(all=lambda: self.answer)


class OneConnection:
    """A database with one connection and nothing behind it."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.begun = 0

    def begin(self) -> None:
        self.begun += 1

    @asynccontextmanager
    async def late_transaction(self) -> Any:
        yield self.connection, self.begin


class Collecting:
    """A part that takes note of what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin_event(self) -> None:
        self.told.append("begin")

    def discard_event(self) -> None:
        self.told.append("discard")

    async def flush(self, uow: UnitOfWork) -> None:
        self.told.append("flush")
        uow.tell_whole(FIRST, {"n": 0})


class Submitting:
    """A service's jobs, which take note of what is submitted."""

    def __init__(self) -> None:
        self.submitted: list[tuple[object, ...]] = []

    async def submit(self, uow: UnitOfWork, graph: Any, options: Options) -> Submitted:
        self.submitted.append((uow, graph, options))
        return Submitted(UUID(int=1), (), is_new=True)


class Paid(EventData):
    channel = "thing"
    event_type = "thing.paid"
    amount: Decimal


def unit(connection: Connection, submitter: Submitting | None = None, **options: Any) -> UnitOfWork:
    sent_to: Any = connection
    return UnitOfWork(sent_to, "tests", SPANS, submitter, **options)


async def test_a_part_is_made_once_for_its_owner_and_flushed_before_all_that_was_told() -> None:
    connection = Connection()
    uow, owner = unit(connection), object()
    part = uow.part(owner, Collecting)
    assert uow.part(owner, Collecting) is part
    assert uow.part("another", Collecting) is not part
    uow.begin_event(EVENT)
    uow.tell(LAST, {"n": 1})
    uow.discard_event()
    uow.begin_event(EVENT)
    uow.tell(LAST, {"n": 2})
    await uow.flush()
    assert part.told == ["begin", "discard", "begin", "flush"]
    assert connection.sent == [FIRST, FIRST, LAST]
    assert connection.parameters == [{"n": 0}, {"n": 0}, {"n": 2}]


async def test_a_job_is_submitted_with_all_that_is_said_of_it() -> None:
    submitter = Submitting()
    uow, firing = unit(Connection(), submitter), Firing(uuid4(), uuid4(), None)  # type: ignore[arg-type]
    graph = object()
    submitted = await uow.submit(
        graph, kind="k", unique="u", unique_s=1.0, priority=2, delay_s=3.0, firing=firing, tenant="t"
    )
    assert submitted.job_id == UUID(int=1)
    await uow.submit(graph)
    said = Options(kind="k", unique="u", unique_s=1.0, priority=2, delay_s=3.0, firing=firing, tenant="t")
    assert submitter.submitted == [(uow, graph, said), (uow, graph, Options())]


async def test_a_service_without_jobs_takes_none() -> None:
    database: Any = OneConnection()
    async with UnitsOfWork(database, "tests", SPANS).begin() as uow:
        with pytest.raises(RuntimeError, match=r"^tests has no jobs$"):
            await uow.submit(object())


def test_what_is_to_be_done_after_the_commit_is_done_then_but_not_for_a_discarded_event() -> None:
    uow, done = unit(Connection()), []
    uow.after_commit(lambda: done.append("first"))
    uow.begin_event(EVENT)
    uow.after_commit(lambda: done.append("discarded"))
    uow.discard_event()
    uow.begin_event(EVENT)
    uow.after_commit(lambda: done.append("last"))
    assert done == []
    uow.committed()
    assert done == ["first", "last"]


async def test_a_flush_that_is_not_the_last_sends_nothing_outside_of_the_transaction() -> None:
    begun: list[bool] = []
    uow = unit(Connection(), begin=lambda: begun.append(True))
    uow.tell(LAST, {"n": 1})
    await uow.flush()
    assert begun == [True]


def test_who_published_nothing_rings_for_no_relay() -> None:
    leading, doorbell = Leading(1), Doorbell()
    with leading.of(0, doorbell):
        unit(Connection(), leading=leading).committed()
    assert not doorbell.is_rung


async def test_a_relay_that_was_not_notified_is_rung_for_whatever_was_published_later() -> None:
    leading, doorbell = Leading(1), Doorbell()
    uow = unit(Connection(), leading=leading)
    with leading.of(0, doorbell):
        uow.publish(Paid(amount=Decimal(1)), subject="s")
        await uow.flush()
    uow.publish(Paid(amount=Decimal(2)), subject="s")
    await uow.flush()
    with leading.of(0, doorbell):
        uow.committed()
    assert doorbell.is_rung


def test_data_is_published_as_json_says_it() -> None:
    published = unit(Connection()).publish(Paid(amount=Decimal("1.50")), subject="s")
    assert published.envelope.data == {"amount": "1.50"}


async def test_a_unit_publishes_as_its_service_and_rings_for_the_relay_beside_it() -> None:
    database: Any = OneConnection()
    leading, doorbell = Leading(1), Doorbell()
    with leading.of(0, doorbell):
        async with UnitsOfWork(database, "tests", SPANS, leading).begin() as uow:
            event = uow.publish(Paid(amount=Decimal(1)), subject="s")
            assert not doorbell.is_rung
    assert (event.envelope.source, doorbell.is_rung) == ("/services/tests", True)


@pytest.mark.parametrize("places", [[7, 8], None])
async def test_a_relay_that_stands_by_is_handed_what_nothing_waits_before(places: list[int] | None) -> None:
    connection = Connection()
    connection.answer = [("a column of the insert's own", places)]
    leading, doorbell = Leading(1), Doorbell()
    uow = unit(connection, leading=leading)
    taken: list[tuple[int, str, str]] = []

    def take(rows: Sequence[Row]) -> bool:
        taken.extend((row["position"], row["key"], row["type"]) for row in rows)
        return True

    doorbell.open(take)
    with leading.of(0, doorbell):
        uow.publish(Paid(amount=Decimal(1)), subject="s")
        uow.publish(Paid(amount=Decimal(2)), subject="s")
        await uow.flush(last=True)
        assert not taken
        uow.committed()
    assert (taken, doorbell.is_rung) == (
        ([(7, "s", "thing.paid"), (8, "s", "thing.paid")], False) if places else ([], True)
    )


async def test_a_text_that_publishes_beside_itself_says_no_places_and_rings() -> None:
    leading, doorbell = Leading(1), Doorbell()
    uow = unit(Connection(), leading=leading)
    doorbell.open(lambda rows: pytest.fail(f"{rows} are handed over"))
    with leading.of(0, doorbell):
        uow.tell(text("with a as (select :n) select * from a"), {"n": 1})
        uow.publish(Paid(amount=Decimal(1)), subject="s")
        await uow.flush(last=True)
        uow.committed()
    assert doorbell.is_rung


async def test_units_on_another_database_are_the_same_but_for_their_connections() -> None:
    here, there = OneConnection(), OneConnection()
    ours: Any = here
    units = UnitsOfWork(ours, "tests", SPANS)
    units.submitter = submitter = Submitting()
    theirs: Any = there
    async with units.on(theirs).begin() as uow:
        uow.tell(LAST, {"n": 1})
        await uow.submit("graph")
    async with units.begin() as uow:
        uow.tell(FIRST, {"n": 1})
    assert (here.connection.sent, there.connection.sent) == ([FIRST], [LAST])
    assert (here.begun, there.begun) == (0, 0), "one statement is a transaction by itself"
    async with units.begin() as uow:
        uow.tell(FIRST, {"n": 1})
        uow.tell(LAST, {"n": 2})
    assert (here.begun, there.begun) == (1, 0)
    assert len(submitter.submitted) == 1
