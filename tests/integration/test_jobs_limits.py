"""Limits to leased steps on a real PostgreSQL: rates, keys, and turns between tenants."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from deploy.native import Runtime
from shared.jobs.context import JobContext
from shared.jobs.jobs import Jobs
from shared.jobs.signatures import job, map_over
from tests.integration.databases import migrated_database
from tests.integration.leased_steps import Ready
from tests.integration.test_jobs_leased import Leased
from tests.integration.world import World, eventually

RATE_PER_S = 5
GATE = asyncio.Event()
RUNNING: Counter[str] = Counter()
MOST: Counter[str] = Counter()
ORDER: list[str] = []


@job(leased=True, queue="keyed", concurrency=2, concurrency_key="user")
async def keyed(number: int, user: str) -> int:
    """Waits at the gate, and counts how many of its user do."""
    RUNNING[user] += 1
    MOST[user] = max(MOST[user], RUNNING[user])
    await GATE.wait()
    RUNNING[user] -= 1
    return number


@job(leased=True, queue="mail")
async def mail(number: int, ctx: JobContext) -> int:
    return number


@job(leased=True, queue="fair")
async def in_turn(number: int, whose: str) -> int:
    """Says whose turn it is; the first waits at the gate."""
    ORDER.append(whose)
    await GATE.wait()
    return number


LIMITED = Jobs(Ready, keyed, mail, in_turn)


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


@pytest.fixture
async def leased(rabbit_world: World, dsn: str) -> Leased:
    made = Leased(rabbit_world, dsn)
    await made.open()
    made.units.submitter = LIMITED
    await made.rows("truncate job_queue, job_tenant")
    for counted in (RUNNING, MOST, ORDER, GATE):
        counted.clear()
    return made


@asynccontextmanager
async def worker(leased: Leased, **settings: object) -> AsyncIterator[None]:
    """A worker of the limited handlers, none of which needs a child."""
    async with leased.worker(jobs=LIMITED, children=True, worker_children_max=1, **settings):
        yield


async def test_of_one_key_no_more_run_at_once_than_its_concurrency_and_others_pass(leased: Leased) -> None:
    many = await leased.submit(map_over(keyed.s(user="a"), range(6)))
    few = await leased.submit(map_over(keyed.s(user="b"), range(2)))
    async with worker(leased), worker(leased):
        await eventually(_both_have_two, "two of each user run")
        rows = await leased.rows(
            "select concurrency_key as key, count(*) as count from job_step where state = 'running' group by 1"
        )
        assert {row.key: row.count for row in rows} == {'keyed "a"': 2, 'keyed "b"': 2}
        GATE.set()
        assert (await leased.ended(many)).value == list(range(6))
        assert (await leased.ended(few)).value == list(range(2))
    assert MOST == {"a": 2, "b": 2}


async def _both_have_two() -> bool:
    return RUNNING == {"a": 2, "b": 2}


async def test_no_more_steps_of_a_queue_begin_in_a_second_than_its_rate_allows_over_all_workers(
    leased: Leased,
) -> None:
    count = 3 * RATE_PER_S
    sent = await leased.submit(map_over(mail, range(count)))
    rates = {"mail": RATE_PER_S}
    async with worker(leased, queue_rate_per_s=rates), worker(leased, queue_rate_per_s=rates):
        assert (await leased.ended(sent)).value == list(range(count))
    query = "select extract(epoch from max(started_at) - min(started_at))::float8 as took_s from job_step"
    [row] = await leased.rows(f"{query} where queue = 'mail'")
    assert row.took_s > (count - RATE_PER_S) / RATE_PER_S - 0.5, "all but a second's worth had to wait"


async def test_a_tenant_with_one_step_does_not_wait_for_the_many_that_another_submitted_before(
    leased: Leased,
) -> None:
    many = await leased.submit(map_over(in_turn.s(whose="a"), range(20)), tenant="a")
    async with worker(leased, worker_slots={"fair": 1}):
        await eventually(lambda: _has_begun(1), "the first runs")
        one = await leased.submit(in_turn.s(1, whose="b"), tenant="b")
        nobody = await leased.submit(in_turn.s(2, whose="nobody"))
        GATE.set()
        for ended in (one, nobody, many):
            await leased.ended(ended)
    assert ORDER.index("nobody") < ORDER.index("b") <= 3
    assert len(ORDER) == 22


async def _has_begun(count: int) -> bool:
    return len(ORDER) >= count
