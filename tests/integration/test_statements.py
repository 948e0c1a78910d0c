"""A statement sent the short way against the same one executed by SQLAlchemy: equal rows, equal errors, and a pool
that is as well as before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
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
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    insert,
    select,
    text,
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
    result = await connection.execute(statement, parameters)
    return result.all() if result.returns_rows else []


async def the_short_way(connection: AsyncConnection, statement: Executable, parameters: dict[str, Any]) -> Any:
    """Fails where it is not that one."""
    known = statements._known(connection.dialect, statement, tuple(parameters))
    while known.form is None:
        known.look()
        assert known._seen < 3, "it has no short way"
    rows = await statements._taken(connection, statement, parameters)
    assert rows is not None
    return rows


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
        assert list(row) == list(ROW.values())
        assert await way(connection, GET, {"wanted": UUID(int=8)}) == []


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

    async def sent(connection: AsyncConnection, what: Executable, values: dict[str, Any]) -> Any:
        known = statements._known(connection.dialect, what, tuple(values))
        for _ in range(3):
            known.look()
        assert known.form is not None
        await statements.send(connection, what, values)

    assert await what_it_raises(quick, sent, statement, parameters) == expected
    assert "secret" not in str(expected)
    assert issubclass(expected[0][0], kind)


@both_ways
async def test_a_cancelled_statement_leaves_no_broken_connection_in_the_pool(database: Database, way: Way) -> None:
    sleep = text("select pg_sleep(20), cast(:a as text), pg_backend_pid()")
    pid = text("select pg_backend_pid(), cast(:a as text)")

    async def work() -> None:
        async with database.transaction() as connection:
            pids.append((await way(connection, pid, {"a": ""}))[0][0])
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
        pids.append((await way(connection, pid, {"a": ""}))[0][0])
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


async def test_a_second_execution_is_the_first_to_be_sent_the_short_way_unless_somebody_watches(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: list[Executable] = []
    execute = AsyncConnection.execute

    async def noted(connection: AsyncConnection, statement: Any, parameters: Any) -> Any:
        executed.append(statement)
        return await execute(connection, statement, parameters)

    monkeypatch.setattr(AsyncConnection, "execute", noted)
    one = text("select cast(:a as text)")
    async with database.transaction() as connection:
        for _ in range(5):
            [[value]] = await statements.fetch(connection, one, {"a": "x"})
            assert value == "x"
        assert len(executed) == 2
        async with connection.begin_nested():
            await statements.send(connection, one, {"a": "x"})
        await statements.send(connection, one, [{"a": "x"}, {"a": "y"}])
        assert len(executed) == 4
