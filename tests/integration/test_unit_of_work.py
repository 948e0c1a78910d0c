"""The unit of work against PostgreSQL: one transaction for state, inbox and outbox, few statements, one NOTIFY."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from shared.consuming import inbox
from shared.envelope import Envelope
from shared.errors import EventTooLargeError, TransientError, UnavailableError
from shared.publishing import UnitsOfWork
from shared.publishing.outbox import NOTIFY_CHANNEL
from tests.integration.world import INSERT_EFFECT, World, happened


@asynccontextmanager
async def statements(world: World) -> AsyncIterator[list[tuple[str, int]]]:
    """What is sent to PostgreSQL inside the block: the verb and for how many rows."""
    sent: list[tuple[str, int]] = []

    def on_execute(_c: Any, _cursor: Any, statement: str, parameters: Any, _ctx: Any, many: bool) -> None:
        arrays = [len(value) for value in parameters if isinstance(value, list)]
        rows = len(parameters) if many else max(arrays, default=1)
        sent.append((" ".join(statement.lower().split()[:3]), rows))

    engine = world.database.engine.sync_engine
    sqlalchemy_event.listen(engine, "before_cursor_execute", on_execute)
    try:
        yield sent
    finally:
        sqlalchemy_event.remove(engine, "before_cursor_execute", on_execute)


@asynccontextmanager
async def notifications(world: World) -> AsyncIterator[list[str]]:
    """What is notified inside the block, complete when the block is left."""
    heard: list[str] = []
    connection = await asyncpg.connect(world.database.dsn)
    await connection.add_listener(NOTIFY_CHANNEL, lambda *_: heard.append("outbox"))
    marked = asyncio.Event()
    await connection.add_listener("mark", lambda *_: marked.set())
    try:
        yield heard
        await connection.execute("notify mark")  # arrives behind everything that was notified before
        await asyncio.wait_for(marked.wait(), 30)
    finally:
        await connection.close()


def row(number: int) -> dict[str, Any]:
    return {"event_id": str(number), "key": "k", "number": number}


@asynccontextmanager
async def round_trips(world: World) -> AsyncIterator[tuple[UnitsOfWork, list[str]]]:
    """Units of work on a pool of their own, and the first two words of whatever it sends to PostgreSQL inside the
    block, with what begins and ends transactions: of a first statement it is told before that begins."""
    sent: list[str] = []

    def note(query: str) -> None:
        sent.append(" ".join(query.lower().strip(";").split()[:2]))

    def listen(connection: Any, _record: object) -> None:
        connection.driver_connection.add_query_logger(lambda told: note(told.query))

    database = await world.opened_database()
    engine = database.engine.sync_engine
    sqlalchemy_event.listen(engine, "connect", listen)
    sqlalchemy_event.listen(engine, "before_cursor_execute", lambda _c, _cursor, query, *_: note(query))
    units = UnitsOfWork(database, "tester", world.telemetry.spans)
    async with units.begin() as uow:  # the driver asks about a connection's types once
        uow.publish(world.data(number=0), subject="a")
    sent.clear()
    yield units, sent


async def test_a_unit_of_one_statement_is_one_round_trip(rabbit_world: World) -> None:
    async with round_trips(rabbit_world) as (units, sent):
        async with units.begin() as uow:
            await uow.reads.execute(text("select 1"))
            uow.tell(INSERT_EFFECT, row(1))
            uow.publish(rabbit_world.data(number=1), subject="a")
        assert sent == ["select 1", "with published"]
        sent.clear()
        async with units.begin() as uow:
            uow.publish(rabbit_world.data(number=2), subject="a")
        assert sent == ["insert into"]
    assert (await rabbit_world.numbers(), await rabbit_world.count("outbox")) == ([1], 3)


async def test_a_unit_of_more_is_one_transaction_and_so_is_the_next_on_its_connection(rabbit_world: World) -> None:
    async with round_trips(rabbit_world) as (units, sent):
        async with units.begin() as uow:
            uow.tell(INSERT_EFFECT, row(1))
            uow.tell(insert(INSERT_EFFECT.table), row(2))
        await asyncio.sleep(0)  # the driver tells of a commit a turn later
        assert sorted(sent) == ["begin", "commit", "insert into", "insert into"]
        sent.clear()
        async with units.begin() as uow:
            await uow.connection.execute(text("select 1"))
            uow.tell(INSERT_EFFECT, row(3))
        await asyncio.sleep(0)
        assert sorted(sent) == ["begin", "commit", "insert into", "select 1"]
        async with units.begin() as uow:
            uow.tell(INSERT_EFFECT, row(4))

        async def undone() -> None:
            async with units._database.transaction() as connection:
                await connection.execute(INSERT_EFFECT, row(5))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await undone()
    assert await rabbit_world.numbers() == [1, 2, 3, 4]


async def test_a_unit_whose_one_statement_is_refused_leaves_nothing_behind(rabbit_world: World) -> None:
    async def work() -> None:
        async with rabbit_world.units.begin() as uow:
            uow.publish(rabbit_world.data(number=1), subject="a")
            uow.tell(INSERT_EFFECT, {**row(2), "number": None})

    async with notifications(rabbit_world) as heard:
        with pytest.raises(IntegrityError, match="null value"):
            await work()
    assert heard == []
    assert [await rabbit_world.count(table) for table in ("effect", "outbox")] == [0, 0]


async def test_what_a_batch_tells_is_a_statement_per_table_and_the_last_publishes(rabbit_world: World) -> None:
    async with statements(rabbit_world) as sent, rabbit_world.units.begin() as uow:
        for number in range(50):
            uow.begin_event(happened(number, key=f"key-{number}"))
            uow.tell(INSERT_EFFECT, row(number))
            uow.publish(rabbit_world.data(number=number), subject=f"key-{number}")
    assert sent == [("with published as", 50)]
    assert await rabbit_world.numbers() == list(range(50))
    assert await rabbit_world.count("outbox") == 50


async def test_the_outbox_holds_the_final_wire_bytes(rabbit_world: World) -> None:
    cause = happened(1)
    async with rabbit_world.units.begin() as uow:
        uow.begin_event(cause)
        published = uow.publish(rabbit_world.data(number=7), subject="a", key="b").envelope
    async with rabbit_world.database.engine.connect() as connection:
        [stored] = (await connection.execute(text("select * from outbox"))).mappings()
    assert Envelope.decode(stored["body"]) == published
    assert orjson.loads(stored["body"])["data"] == {"number": 7}
    assert (stored["key"], stored["type"], stored["channel"]) == ("b", "thing.happened", rabbit_world.channel)
    assert (published.causationid, published.correlationid) == (cause.id, cause.id)
    assert stored["traceparent"] == published.traceparent


async def test_the_relay_is_notified_once_per_transaction_and_only_when_there_is_something(
    rabbit_world: World,
) -> None:
    async with notifications(rabbit_world) as heard, rabbit_world.units.begin() as uow:
        uow.tell(INSERT_EFFECT, row(1))
    assert heard == []
    async with notifications(rabbit_world) as heard, rabbit_world.units.begin() as uow:
        for number in range(3):
            uow.publish(rabbit_world.data(number=number), subject="a")
    assert heard == ["outbox"]


async def test_an_exception_leaves_nothing_behind_and_nobody_notified(rabbit_world: World) -> None:
    async def work() -> None:
        async with rabbit_world.units.begin() as uow:
            await inbox.record(uow.connection, "s", [happened(1)])
            uow.tell(INSERT_EFFECT, row(1))
            uow.publish(rabbit_world.data(number=1), subject="a")
            await uow.flush()
            uow.tell(INSERT_EFFECT, row(2))
            raise ZeroDivisionError

    async with notifications(rabbit_world) as heard:
        with pytest.raises(ZeroDivisionError):
            await work()
    assert heard == []
    assert [await rabbit_world.count(table) for table in ("inbox", "effect", "outbox")] == [0, 0, 0]


async def test_a_cancelled_transaction_leaves_nothing_behind(rabbit_world: World) -> None:
    flushed = asyncio.Event()

    async def work() -> None:
        async with rabbit_world.units.begin() as uow:
            uow.tell(INSERT_EFFECT, row(1))
            uow.publish(rabbit_world.data(number=1), subject="a")
            await uow.flush()
            flushed.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.wait_for(flushed.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [await rabbit_world.count(table) for table in ("effect", "outbox")] == [0, 0]


async def test_a_statement_that_postgresql_refuses_undoes_the_whole_batch(rabbit_world: World) -> None:
    async def work() -> None:
        async with rabbit_world.units.begin() as uow:
            uow.publish(rabbit_world.data(number=1), subject="a")
            uow.tell(INSERT_EFFECT, row(1))
            uow.tell(INSERT_EFFECT, {**row(2), "number": None})

    with pytest.raises(IntegrityError, match="null value"):
        await work()
    assert [await rabbit_world.count(table) for table in ("effect", "outbox")] == [0, 0]


async def test_an_event_over_the_limit_is_refused_when_it_is_published(rabbit_world: World) -> None:
    async def work() -> None:
        async with rabbit_world.units.begin() as uow:
            uow.tell(INSERT_EFFECT, row(1))
            uow.publish(rabbit_world.data(number=1), subject="x" * 1_000_000)

    with pytest.raises(EventTooLargeError):
        await work()
    assert await rabbit_world.count("effect") == 0


async def test_a_discarded_event_takes_back_its_own_rows_and_events_only(rabbit_world: World) -> None:
    async with rabbit_world.units.begin() as uow:
        for number in range(3):
            uow.begin_event(happened(number, key=f"key-{number}"))
            uow.tell(INSERT_EFFECT, row(number))
            uow.publish(rabbit_world.data(number=number), subject=f"key-{number}")
            if number == 1:
                uow.discard_event()
    assert await rabbit_world.numbers() == [0, 2]
    assert await rabbit_world.count("outbox") == 2


async def test_a_deadlock_is_transient_and_a_lost_session_is_unavailable(rabbit_world: World) -> None:
    with pytest.raises(TransientError) as deadlock:
        async with rabbit_world.units.begin() as uow:
            await uow.connection.execute(text("do $$ begin raise exception using errcode = '40P01'; end $$"))
    assert not isinstance(deadlock.value, UnavailableError)
    with pytest.raises(UnavailableError):
        async with rabbit_world.units.begin() as uow:
            await uow.connection.execute(text("select pg_terminate_backend(pg_backend_pid())"))


async def test_a_statement_that_is_not_answered_in_time_is_unavailable(rabbit_world: World) -> None:
    """PostgreSQL that hangs is nobody's poison: not what is told, not what a handler reads."""
    database = await rabbit_world.opened_database(postgres_timeout_s=0.3)
    with pytest.raises(UnavailableError):
        async with database.transaction() as connection:
            await connection.execute(text("select pg_sleep(20)"))


async def test_an_oserror_of_the_callers_own_passes_as_it_is(rabbit_world: World) -> None:
    with pytest.raises(FileNotFoundError):
        async with rabbit_world.units.begin():
            raise FileNotFoundError


async def test_the_server_ends_sessions_of_processes_that_were_stopped_or_cut_off(rabbit_world: World) -> None:
    """A transaction that nobody goes on with holds inbox rows that a successor waits for."""
    database = await rabbit_world.opened_database(handler_timeout_s=1.0)
    async with database.transaction() as connection:
        result = await connection.execute(text("select name, setting from pg_settings where name like 'tcp_%'"))
        settings = {name: int(value) for name, value in result.all()}
    idle_s = settings["tcp_keepalives_idle"]
    idle_s += settings["tcp_keepalives_interval"] * settings["tcp_keepalives_count"]
    assert 0 < idle_s <= 30
    assert 0 < settings["tcp_user_timeout"] <= 30_000

    async def stand_still() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("select 1"))
            await asyncio.sleep(3)
            await connection.execute(text("select 1"))

    with pytest.raises(UnavailableError):
        await stand_still()
