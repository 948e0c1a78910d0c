"""A statement sent the short way against the same one executed by SQLAlchemy: equal rows, equal errors, and a pool
that is as well as before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Executable,
    Identity,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    Uuid,
    bindparam,
    event,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import statements
from shared.database import Database
from shared.errors import TransientError, UnavailableError
from tests.integration.world import World

THING = Table(
    "statement_thing",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("position", BigInteger, Identity()),
    Column("body", postgresql.JSONB, nullable=False),
    Column("at", DateTime(timezone=True)),
    Column("sure", Boolean),
    Column("raw", LargeBinary),
    Column("note", Text),
)
NUMBERED = Table(
    "statement_numbered",
    THING.metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("note", Text),
)
INSERT = insert(THING)
GET = select(THING.c.id, THING.c.body, THING.c.at, THING.c.sure, THING.c.raw, THING.c.note).where(
    THING.c.id == bindparam("wanted")
)
ROW = {
    "id": UUID(int=7),
    "body": {"lines": [{"sku": "ä", "n": 1.5}], "none": None},
    "at": datetime(2026, 11, 30, 4, 5, 6, 789, tzinfo=UTC),
    "sure": False,
    "raw": b"\x00\xff",
    "note": None,
}
Way = Callable[[AsyncConnection, Executable, dict[str, Any]], Awaitable[Any]]


async def by_sqlalchemy(connection: AsyncConnection, statement: Executable, parameters: dict[str, Any]) -> Any:
    return await AsyncConnection.execute(connection, statement, parameters)


async def the_short_way(connection: AsyncConnection, statement: Executable, parameters: dict[str, Any]) -> Any:
    """Fails where it is not that one; also for what was never executed before."""
    known = statements._known(connection.dialect, statement, tuple(parameters))
    if known.form is None:
        nothing: Any = SimpleNamespace(
            context=SimpleNamespace(cursor=SimpleNamespace(description=())), _metadata=None
        )
        known.form = statements._form_of(connection.dialect, statement, tuple(parameters), nothing)
        assert known.form is not None
    result = await connection.execute(statement, parameters)
    assert isinstance(result, statements._Result)
    return result


both_ways = pytest.mark.parametrize("way", [by_sqlalchemy, the_short_way])


@pytest.fixture
async def database(rabbit_world: World) -> AsyncIterator[Database]:
    """A pool of one connection, and an empty table."""
    database = await rabbit_world.opened_database(postgres_pool_max=1)
    async with database.engine.begin() as connection:
        await connection.run_sync(THING.metadata.drop_all)
        await connection.run_sync(THING.metadata.create_all)
    yield database
    async with database.engine.begin() as connection:
        await connection.run_sync(THING.metadata.drop_all)


async def count(database: Database) -> int:
    async with database.statement() as connection:
        return int(await connection.scalar(text("select count(*) from statement_thing")) or 0)


@both_ways
async def test_a_row_of_every_type_comes_back_as_it_went(database: Database, way: Way) -> None:
    async with database.transaction() as connection:
        await way(connection, INSERT, ROW)
        [row] = await way(connection, GET, {"wanted": ROW["id"]})
        assert row == tuple(ROW.values())
        assert (await way(connection, GET, {"wanted": UUID(int=8)})).all() == []


@both_ways
async def test_it_is_in_the_transaction(database: Database, way: Way) -> None:
    async def undone() -> None:
        async with database.transaction() as connection:
            await way(connection, INSERT, ROW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await undone()
    assert await count(database) == 0
    async with database.late_transaction() as (connection, begin):
        await way(connection, INSERT, ROW)
        begin()
        await way(connection, INSERT, {**ROW, "id": UUID(int=8)})
        assert await connection.scalar(text("select count(*) from statement_thing")) == 2
    assert await count(database) == 2


@both_ways
async def test_before_the_transaction_begins_a_statement_is_one_by_itself(database: Database, way: Way) -> None:
    async def undone() -> None:
        async with database.late_transaction() as (connection, _begin):
            await way(connection, INSERT, ROW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await undone()
    assert await count(database) == 1


async def test_where_each_statement_is_a_transaction_it_goes_the_short_way_as_well(database: Database) -> None:
    async def undone() -> None:
        async with database.statement() as connection:
            await the_short_way(connection, INSERT, ROW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await undone()
    assert await count(database) == 1
    async with database.transaction() as connection:
        times = [await connection.scalar(text("select now()")) for _ in range(2)]
    assert times[0] == times[1], "the next one that has the connection has a transaction"


async def what_it_raises(database: Database, way: Way, statement: Executable, parameters: dict[str, Any]) -> Any:
    """What a transaction ends with whose statement fails; then what the first of two says that is passed over, and
    what that transaction ends with."""
    told = []

    async def fail(swallowed: int) -> None:
        async with database.transaction() as connection:
            for _ in range(swallowed):
                try:
                    await way(connection, statement, parameters)
                except Exception as error:  # noqa: BLE001 - all that matters is that it is the same both ways
                    told.append(described(error))
            await way(connection, statement, parameters)

    for swallowed in (0, 1):
        with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever it is
            await fail(swallowed)
        told.append(described(raised.value))
    assert await count(database) == 0
    return told


def described(error: BaseException) -> tuple[object, ...]:
    if not isinstance(error, DBAPIError):
        return type(error), str(error)
    cause = None if error.orig is None else error.orig.__cause__
    return type(error), str(error), type(error.orig), type(cause), error.connection_invalidated


async def sent_short(connection: AsyncConnection, statement: Executable, parameters: dict[str, Any]) -> Any:
    """As `the_short_way`, for what fails."""
    try:
        await the_short_way(connection, statement, parameters)
    except AssertionError:
        pytest.fail("it took SQLAlchemy's way")


@pytest.mark.parametrize(
    ("statement", "parameters", "kind"),
    [
        (INSERT, {**ROW, "id": None, "note": "secret"}, IntegrityError),
        (INSERT, {**ROW, "note": 5}, DBAPIError),
        (INSERT, {**ROW, "body": {1, 2}}, StatementError),
        (text("select * from nowhere where a = :a"), {"a": 1}, DBAPIError),
        (text("select pg_terminate_backend(pg_backend_pid()), cast(:a as text)"), {"a": ""}, UnavailableError),
        (text("select pg_sleep(20), cast(:a as text)"), {"a": ""}, UnavailableError),
        (text("do $$ begin raise exception using errcode = '40P01'; end $$"), {}, TransientError),
    ],
    ids=["null", "type", "unbindable", "syntax", "terminated", "time-out", "deadlock"],
)
async def test_an_error_is_the_same_both_ways(
    rabbit_world: World, database: Database, statement: Executable, parameters: dict[str, Any], kind: Any
) -> None:
    quick = await rabbit_world.opened_database(postgres_timeout_s=0.3, postgres_pool_max=1)
    expected = await what_it_raises(quick, by_sqlalchemy, statement, parameters)

    assert await what_it_raises(quick, sent_short, statement, parameters) == expected
    assert "secret" not in str(expected)
    assert issubclass(expected[0][0], kind)


@both_ways
async def test_a_cancelled_statement_leaves_no_broken_connection_in_the_pool(database: Database, way: Way) -> None:
    sleep = text("select pg_sleep(20), cast(:a as text), pg_backend_pid()")
    pid = text("select pg_backend_pid(), cast(:a as text)")

    async def work() -> None:
        async with database.transaction() as connection:
            pids.append((await way(connection, pid, {"a": ""})).scalar())
            asleep.set()
            await way(connection, sleep, {"a": ""})

    pids: list[int] = []
    asleep = asyncio.Event()
    task = asyncio.create_task(work())
    await asleep.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.transaction() as connection:
        pids.append((await way(connection, pid, {"a": ""})).scalar())
        await way(connection, INSERT, ROW)
    assert pids[0] != pids[1]
    assert await count(database) == 1


@both_ways
async def test_a_connection_that_is_lost_takes_no_further_statement(database: Database, way: Way) -> None:
    kill = text("select pg_terminate_backend(pg_backend_pid()), cast(:a as text)")

    async def go_on() -> None:
        async with database.transaction() as connection:
            with pytest.raises(DBAPIError):
                await way(connection, kill, {"a": ""})
            with pytest.raises(PendingRollbackError):
                await way(connection, INSERT, ROW)

    with pytest.raises(PendingRollbackError):  # it cannot be committed, either
        await go_on()
    assert await count(database) == 0


@both_ways
async def test_a_table_that_is_changed_meanwhile_is_read_as_it_is(database: Database, way: Way) -> None:
    every = text("select * from statement_thing where id = :id")
    async with database.transaction() as connection:
        await way(connection, INSERT, ROW)
        [before] = await way(connection, every, {"id": ROW["id"]})
    async with database.transaction() as connection:
        await connection.execute(text("alter table statement_thing add column more text default 'more'"))
    with pytest.raises(DBAPIError, match="cached statement plan is invalid"):
        async with database.transaction() as connection:
            await way(connection, every, {"id": ROW["id"]})
    async with database.transaction() as connection:
        [after] = await way(connection, every, {"id": ROW["id"]})
    assert list(after) == [*before, "more"]


READINGS: list[Callable[[Any], Any]] = [
    lambda result: result.all(),
    list,
    lambda result: [dict(row) for row in result.mappings()],
    lambda result: result.mappings().first(),
    lambda result: result.one(),
    lambda result: result.scalar(),
    lambda result: result.scalars().all(),
    lambda result: list(result.keys()),
    lambda result: (result.rowcount, result.returns_rows),
    lambda result: result.one().one,
    lambda result: result.one().note,
    lambda result: result.mappings().one()["one"],
    lambda result: result.mappings().one()[THING.c.id],
    lambda result: (result.all(), result.all()),
    lambda result: (result.first(), result.all()),
]


def read(result: Any, reading: Callable[[Any], Any]) -> Any:
    try:
        return reading(result)
    except Exception as error:  # noqa: BLE001 - it is the same both ways
        return type(error), str(error)


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (select(THING).where(THING.c.id == bindparam("wanted")), {"wanted": ROW["id"]}),
        (select(THING.c.note.label("one"), THING.c.id, literal(Decimal("1.50")), literal(2.5)), None),
        (text("select 1 as one, 'a' as other, 2 as one"), {}),
        (text("select cast(:a as interval) as one").columns(one=Interval), {"a": timedelta(days=3)}),
        (text("select numeric '1.50' as one").columns(one=Numeric(asdecimal=False)), None),
        (update(THING).where(THING.c.sure.is_(False)).values(note="x"), {}),
        (text("update statement_thing set note = :note returning id, note"), {"note": "y"}),
        (insert(NUMBERED).returning(NUMBERED.c.note), {"note": "n"}),
        (text("set local statement_timeout = 0"), None),
    ],
)
async def test_a_result_is_read_as_sqlalchemys_is(
    database: Database, statement: Executable, parameters: Any
) -> None:
    async with database.transaction() as connection:
        await connection.execute(INSERT, ROW)
        await connection.execute(statement, parameters)
        await connection.execute(statement, parameters)
        for reading in READINGS:
            expected = await AsyncConnection.execute(connection, statement, parameters)
            result = await connection.execute(statement, parameters)
            assert isinstance(result, statements._Result)
            assert read(result, reading) == read(expected, reading)


async def test_the_key_that_an_insert_is_given_is_no_row(database: Database) -> None:
    """SQLAlchemy asks for it by itself."""
    statement = insert(NUMBERED)
    async with database.transaction() as connection:
        for _ in range(3):
            result = await connection.execute(statement, {"note": "n"})
            assert (result.all(), result.rowcount) == ([], 1)
        assert isinstance(result, statements._Result)


async def test_the_third_execution_is_the_first_to_go_the_short_way_unless_it_is_unusual(
    database: Database,
) -> None:
    one = text("select cast(:a as text)")

    async def is_short(connection: AsyncConnection, parameters: Any) -> bool:
        return isinstance(await connection.execute(one, parameters), statements._Result)

    async with database.transaction() as connection:
        assert [await is_short(connection, {"a": "x"}) for _ in range(4)] == [False, False, True, True]
        async with connection.begin_nested():
            assert not await is_short(connection, {"a": "x"})
        assert await is_short(connection, {"a": "x"})
        event.listen(database.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        assert not await is_short(connection, {"a": "x"})
