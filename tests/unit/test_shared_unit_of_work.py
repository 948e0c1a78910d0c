"""How the unit of work groups what it is told: few statements, each key's order kept, discarded events gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Executable, Integer, MetaData, Table, insert, text, update
from sqlalchemy.dialects import postgresql

from shared.envelope import Envelope
from shared.event import EventData
from shared.publishing import Leading
from shared.publishing.doorbell import Doorbell
from shared.publishing.outbox import NOTIFY_CHANNEL, Asks, publishing_beside
from shared.publishing.uow import UnitOfWork
from shared.settings import Settings
from shared.telemetry.telemetry import Telemetry

A, B, C = (text(f"select '{name}'") for name in "abc")
STATEMENTS = (A, B, C)


class Happened(EventData):
    channel = "thing"
    event_type = "thing.happened"
    number: int = 0


class Connection:
    """Remembers what it was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[Executable, list[Mapping[str, Any]]]] = []

    async def execute(self, statement: Executable, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        self.sent.append((statement, list(rows) if isinstance(rows, list) else [rows]))  # type: ignore[list-item]


@pytest.fixture(scope="module")
def telemetry() -> Telemetry:
    return Telemetry(
        Settings.from_environment(
            broker="kafka",
            http_port=1,
            postgres_dsn="postgresql://-",
            redis_url="redis://-",
            kafka_bootstrap="-:1",
            trace_ratio=0.0,
        ),
        "tests",
    )


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
def uow(connection: Connection, telemetry: Telemetry) -> UnitOfWork:
    return UnitOfWork(connection, "tests", telemetry.spans)  # type: ignore[arg-type]


def event(key: str) -> Envelope:
    return Envelope(source="/tests", type="thing.happened", partitionkey=key, data=None)


async def test_nothing_is_sent_before_the_flush(uow: UnitOfWork, connection: Connection) -> None:
    uow.tell(A, {"n": 1})
    uow.publish(Happened(), subject="s")
    assert connection.sent == []


async def test_nothing_told_is_nothing_sent(uow: UnitOfWork, connection: Connection) -> None:
    await uow.flush()
    assert connection.sent == []


async def test_rows_of_different_keys_share_a_statement(uow: UnitOfWork, connection: Connection) -> None:
    for number in range(5):
        uow.begin_event(event(f"key-{number}"))
        uow.tell(A, {"n": number})
        uow.tell(B, {"n": number})
    await uow.flush()
    assert connection.sent == [(A, [{"n": n} for n in range(5)]), (B, [{"n": n} for n in range(5)])]


async def test_a_key_that_comes_back_to_a_statement_gets_a_later_group(
    uow: UnitOfWork, connection: Connection
) -> None:
    for statement in (A, B, A):
        uow.begin_event(event("k"))
        uow.tell(statement, {})
    await uow.flush()
    assert [statement for statement, _ in connection.sent] == [A, B, A]


async def test_a_flush_forgets_what_it_sent(uow: UnitOfWork, connection: Connection) -> None:
    uow.tell(A, {"n": 1})
    await uow.flush()
    await uow.flush()
    uow.tell(A, {"n": 2})
    await uow.flush()
    assert connection.sent == [(A, [{"n": 1}]), (A, [{"n": 2}])]


async def test_the_outbox_comes_last_with_one_notification(uow: UnitOfWork, connection: Connection) -> None:
    uow.publish(Happened(number=1), subject="s")
    uow.tell(A, {})
    uow.publish(Happened(number=2), subject="s")
    await uow.flush()
    assert connection.sent[0] == (A, [{}])
    assert len(connection.sent) == 2
    assert str(connection.sent[-1][0]).count(NOTIFY_CHANNEL) == 1


async def test_the_last_of_the_inserts_publishes_too(uow: UnitOfWork, connection: Connection) -> None:
    table = Table("thing", MetaData(), Column("n", Integer))
    last = insert(table)
    uow.tell(A, {"n": 1})
    uow.publish(Happened(number=1), subject="s")
    uow.tell(last, {"n": 2})
    await uow.flush()
    assert connection.sent[0] == (A, [{"n": 1}])
    [(statement, [parameters])] = connection.sent[1:]
    assert str(statement).count(NOTIFY_CHANNEL) == 1
    assert "INSERT INTO thing" in str(statement)
    assert (parameters["n"], type(parameters["outbox_body"])) == (2, bytes)


def test_what_may_wait_for_a_lock_publishes_nothing_beside_itself() -> None:
    table = Table("thing", MetaData(), Column("n", Integer))
    upsert = postgresql.insert(table).on_conflict_do_nothing()
    for statement in (update(table), upsert, text("select 1")):
        assert publishing_beside(statement, Asks.NOTIFIES, one=True) is None
    written = publishing_beside(text("with a as (select :n) select * from a"), Asks.NOTIFIES, one=True)
    assert str(written).startswith("with published as (")
    assert str(written).endswith("), a as (select :n) select * from a")


async def test_a_transaction_begins_when_it_is_needed(connection: Connection, telemetry: Telemetry) -> None:
    """What is told later is sent by the last flush, alone if it is one statement of one row or of arrays."""
    begun: list[int] = []

    def unit() -> UnitOfWork:
        begun.clear()
        begin = lambda: begun.append(len(connection.sent))  # noqa: E731
        return UnitOfWork(connection, "tests", telemetry.spans, begin=begin)  # type: ignore[arg-type]

    uow = unit()
    assert uow.reads is connection  # type: ignore[comparison-overlap]
    uow.tell(A, {"n": 1})
    await uow.flush(last=True)
    assert begun == []

    for statements, last in (((A,), False), ((A, B), True), ((A, A), True)):
        uow = unit()
        sent_before = len(connection.sent)
        for number, statement in enumerate(statements):
            uow.tell(statement, {"n": number})
        await uow.flush(last=last)
        assert begun == [sent_before], "once, before all that it is for"
    uow = unit()
    asked: list[object] = [uow.connection, uow.connection]
    assert asked == [connection, connection]
    assert len(begun) == 1


async def test_relays_of_this_process_are_rung_for_once_it_is_committed(
    connection: Connection, telemetry: Telemetry
) -> None:
    leading, doorbell = Leading(1), Doorbell()
    uow = UnitOfWork(connection, "tests", telemetry.spans, leading=leading)  # type: ignore[arg-type]
    with leading.of(0, doorbell):
        uow.publish(Happened(), subject="s")
        await uow.flush()
        assert NOTIFY_CHANNEL not in str(connection.sent[-1][0])
        assert not doorbell.is_rung
        uow.committed()
    assert doorbell.is_rung


def test_an_event_is_caused_by_the_one_being_handled(uow: UnitOfWork) -> None:
    cause = Envelope(source="/tests", type="thing.happened", correlationid="root", data=None)
    uow.begin_event(cause)
    published = uow.publish(Happened(number=3), subject="subject", key="key").envelope
    assert (published.causationid, published.correlationid) == (cause.id, "root")
    assert (published.subject, published.key) == ("subject", "key")
    assert published.source == "/services/tests"
    assert published.dataschema == "urn:tandem:thing.happened:1"


def test_an_event_of_a_request_begins_a_correlation(uow: UnitOfWork) -> None:
    published = uow.publish(Happened(), subject="subject").envelope
    assert (published.causationid, published.correlationid) == (None, published.id)
    assert published.key == "subject"


async def test_after_a_flush_an_event_cannot_be_discarded_until_the_next_begins(uow: UnitOfWork) -> None:
    uow.begin_event(event("k"))
    uow.tell(A, {})
    assert uow.can_discard_event
    await uow.flush()
    assert not uow.can_discard_event
    uow.begin_event(event("k"))
    assert uow.can_discard_event


told_events = st.lists(
    st.tuples(
        st.sampled_from(["k1", "k2", "k3"]),
        st.lists(st.sampled_from([0, 1, 2]), max_size=4),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=20,
)


@given(told=told_events)
async def test_every_key_keeps_its_order_and_discarded_events_leave_nothing(
    told: list[tuple[str, list[int], int, bool]], telemetry: Telemetry
) -> None:
    """A model: what each key told, event by event, without the discarded ones."""
    connection = Connection()
    uow = UnitOfWork(connection, "tests", telemetry.spans)  # type: ignore[arg-type]
    expected: dict[str, list[tuple[int, int]]] = defaultdict(list)
    published: list[int] = []
    number = 0
    for key, statements, events, discarded in told:
        uow.begin_event(event(key))
        for statement in statements:
            number += 1
            uow.tell(STATEMENTS[statement], {"key": key, "number": number, "statement": statement})
            if not discarded:
                expected[key].append((statement, number))
        for _ in range(events):
            number += 1
            uow.publish(Happened(number=number), subject=key)
            if not discarded:
                published.append(number)
        if discarded:
            uow.discard_event()
    outbox_numbers = [Envelope.decode(row["body"]).data["number"] for row in uow._outbox]
    await uow.flush()

    actual: dict[str, list[tuple[int, int]]] = defaultdict(list)
    tables = [sent for sent in connection.sent if sent[0] in STATEMENTS]
    for executed, rows in tables:
        assert rows, "an empty statement"
        for row in rows:
            assert executed is STATEMENTS[row["statement"]]
            actual[row["key"]].append((row["statement"], row["number"]))
    assert actual == expected
    assert outbox_numbers == published
