"""Who looks for something reads nothing of what waits for others: counted in pages that a statement touches."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from deploy.native import Runtime
from shared.jobs import leases, limits, store
from tests.integration.databases import migrated_database

WAITING = 3_000
"""Of each kind; they fill over a hundred pages, and their indexes some dozens."""
PAGES_MAX = 60
BUSY, BATCH = 1_000, 200
FULL, ALSO_FULL = 'keyed "m"', 'keyed "d"'

_FILL = text(
    """
    insert into job_step (id, job_id, number, handler, queue, leased, args, takes, state, waiting_on, attempt,
                          first_attempt, delay_s, due_at, priority, fair_at, concurrency_key)
    select gen_random_uuid(), gen_random_uuid(), 0, :handler, :queue, :leased, '{}', 'nothing', :state, 0, 1, 1, 0,
           now() + make_interval(days => cast(:days as integer)), 0, 'epoch', :key
      from generate_series(1, cast(:count as integer))
    """
)
_WORKER = text(
    """
    insert into job_worker (id, process, host, pid, slots, running, draining, started_at, beat_at, alive_until)
    values (:worker, 'w', 'h', 1, 4, 0, false, now(), now(), now() + interval '1 day')
    """
)
_RUN_ONE = text(
    """
    update job_step set state = 'running', leased_by = :worker
     where id = (select id from job_step where concurrency_key = :key and state = 'ready' limit 1)
    """
)
_TAKEN = text("select handler, concurrency_key from job_step where leased_by = :worker")


@pytest.fixture(scope="module")
async def engine(servers: Runtime) -> AsyncIterator[AsyncEngine]:
    """Thousands wait: for a later time, in another queue, for another lane, and for a key that will be full."""
    dsn = await migrated_database(servers, "jobs")
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://", 1))
    async with engine.begin() as connection:
        await fill(connection, "later", "inline", count=WAITING, state="scheduled", leased=False)
        await fill(connection, "unserved", "unserved", count=WAITING)
        await fill(connection, "other", "shared", count=WAITING)
        await fill(connection, "keyed", "keyed", FULL, count=WAITING)
        await fill(connection, "busy", "busy", count=WAITING, state="succeeded")
        await fill(connection, "busy", "busy", count=BUSY)
        await fill(connection, "inline", "inline", count=BATCH, leased=False)
        await connection.execute(text("analyze job_step"))
    yield engine
    await engine.dispose()


@pytest.fixture
async def connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """In a transaction that is rolled back."""
    async with engine.connect() as connection:
        yield connection


async def fill(
    connection: AsyncConnection,
    handler: str,
    queue: str,
    key: str | None = None,
    count: int = 1,
    state: str = "ready",
    *,
    leased: bool = True,
) -> None:
    """Have so many steps of a handler wait, or be done."""
    told = {"handler": handler, "queue": queue, "key": key, "count": count, "state": state, "leased": leased}
    await connection.execute(_FILL, {**told, "days": int(state == "scheduled")})


async def a_worker(connection: AsyncConnection) -> UUID:
    worker = uuid4()
    await connection.execute(_WORKER, {"worker": worker})
    return worker


async def have_full(connection: AsyncConnection, *keys: str) -> None:
    """Have one step of each of these keys run, at another worker, and one wait."""
    other = await a_worker(connection)
    for key in keys:
        await fill(connection, "keyed", "keyed", key, count=2)
        await connection.execute(_RUN_ONE, {"worker": other, "key": key})


async def plan_of(connection: AsyncConnection, statement: TextClause, told: Mapping[str, Any]) -> dict[str, Any]:
    """What PostgreSQL did, as it explains it."""
    explained = text(f"explain (analyze, buffers, format json) {statement.text}")
    found = (await connection.execute(explained, told)).scalar_one()
    [explanation] = json.loads(found) if isinstance(found, str) else found
    return dict(explanation["Plan"])


async def pages(connection: AsyncConnection, statement: TextClause, told: Mapping[str, Any]) -> int:
    """How many a statement touches, in memory or not."""
    plan = await plan_of(connection, statement, told)
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def compared(plan: dict[str, Any]) -> int:
    """How many pairs of rows a plan looked at that did not belong together."""
    here = int(plan.get("Rows Removed by Join Filter", 0)) * int(plan["Actual Loops"])
    return here + sum(map(compared, plan.get("Plans", ())))


async def taken(
    connection: AsyncConnection, statement: TextClause, told: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """Handler and key of the steps that the worker has then."""
    await connection.execute(statement, told)
    return [(row.handler, row.concurrency_key) for row in await connection.execute(_TAKEN, told)]


def asked(worker: UUID, queue: str, *handlers: str) -> dict[str, Any]:
    return {"worker": worker, "queue": queue, "handlers": list(handlers), "free": 4}


def limited(worker: UUID, *handlers: str) -> dict[str, Any]:
    """Of a key one at once."""
    told = {"limited": ["keyed"], "counts": [1], "looked_max": limits.LOOKED_AT_MAX}
    return {**asked(worker, "keyed", *handlers), **told}


@pytest.mark.parametrize("queue", ["empty", "shared"])
async def test_a_lane_that_has_nothing_to_do_reads_nothing_of_what_waits_for_others(
    connection: AsyncConnection, queue: str
) -> None:
    told = asked(await a_worker(connection), queue, "mine")
    assert await pages(connection, leases._TAKE, told) < PAGES_MAX
    assert await taken(connection, leases._TAKE, told) == []


async def test_a_lane_that_has_a_step_behind_what_waits_for_others_takes_it(connection: AsyncConnection) -> None:
    await fill(connection, "mine", "shared")
    told = asked(await a_worker(connection), "shared", "mine")
    assert await taken(connection, leases._TAKE, told) == [("mine", None)]


async def test_a_lane_that_has_much_to_do_reads_no_more_than_it_takes(connection: AsyncConnection) -> None:
    told = asked(await a_worker(connection), "busy", "busy")
    assert await pages(connection, leases._TAKE, told) < 3 * PAGES_MAX
    assert await taken(connection, leases._TAKE, told) == [("busy", None)] * 8, "explained, it took four as well"


@pytest.mark.parametrize("statement", [store._END_STEPS, store._END_SOLOS])
async def test_the_ends_of_a_batch_are_not_compared_each_with_each(
    connection: AsyncConnection, statement: TextClause
) -> None:
    ids = (await connection.execute(text("select id from job_step where handler = 'inline'"))).scalars().all()
    nothing = [None] * len(ids)
    told = {"id": ids, "attempt": [1] * len(ids), "result": ["3"] * len(ids), "worker": nothing}
    more = {"state": ["succeeded"] * len(ids), "stored": nothing, "error": nothing, "wait_s": nothing}
    plan = await plan_of(connection, statement, {**told, **(more if statement is store._END_STEPS else {})})
    assert len(ids) == BATCH
    assert compared(plan) < 10 * BATCH


async def test_who_looks_for_what_is_due_reads_nothing_of_what_is_not(connection: AsyncConnection) -> None:
    assert await pages(connection, store._TAKE_DUE, {"count_max": 500}) < PAGES_MAX
    assert await pages(connection, store._NEXT_DUE, {}) < PAGES_MAX


async def test_nothing_is_read_of_what_waits_for_a_key_that_is_full(connection: AsyncConnection) -> None:
    await have_full(connection, FULL)
    told = limited(await a_worker(connection), "keyed")
    assert await pages(connection, limits._TAKE, told) < PAGES_MAX
    assert await taken(connection, limits._TAKE, told) == []


@pytest.mark.parametrize("key", ['keyed "a"', 'keyed "h"', 'keyed "z"', None])
async def test_a_step_of_another_key_is_found_before_between_and_behind_those_that_are_full(
    connection: AsyncConnection, key: str | None
) -> None:
    await have_full(connection, FULL, ALSO_FULL)
    await fill(connection, "keyed", "keyed", key)
    assert await taken(connection, limits._TAKE, limited(await a_worker(connection), "keyed")) == [("keyed", key)]


async def test_a_handler_without_a_limit_is_found_beside_one_whose_key_is_full(
    connection: AsyncConnection,
) -> None:
    await have_full(connection, FULL)
    await fill(connection, "free", "keyed")
    told = limited(await a_worker(connection), "keyed", "free")
    assert await taken(connection, limits._TAKE, told) == [("free", None)]
