"""Jobs that ended long ago are deleted as wholes, with all that belongs to them and nothing of others."""

from __future__ import annotations

import pytest

from deploy.native import Runtime
from shared.jobs.pruning import prune, prune_kind
from shared.jobs.signatures import chain, group, map_over
from tests.integration.databases import migrated_database
from tests.integration.jobs_world import JobsWorld, add, leased_tag, reject, tag, total
from tests.integration.world import World

MANY = 1_000
A_DAY_S = 86_400.0
TABLES = ("job", "job_step", "job_edge", "job_attempt", "job_unique")


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


@pytest.fixture
async def jobs(rabbit_world: World, dsn: str) -> JobsWorld:
    made = JobsWorld(rabbit_world, dsn, leased_tag)
    await made.open()
    return made


async def counts(jobs: JobsWorld) -> list[int]:
    [row] = await jobs.rows("select " + ", ".join(f"(select count(*) from {table})" for table in TABLES))
    return list(row)


async def pruned(jobs: JobsWorld, older_than_s: float, count_max: int, kind: str | None = None) -> int:
    async with jobs.database.transaction() as connection:
        if kind is None:
            return await prune(connection, older_than_s, count_max)
        return await prune_kind(connection, older_than_s, count_max, kind=kind)


async def test_what_ended_long_enough_ago_is_gone_with_all_that_belongs_to_it(jobs: JobsWorld) -> None:
    both = group(add.s(1, 2), add.s(3, 4))
    await jobs.submit(chain(both, then=total.s()), unique="taken")
    await jobs.submit(tag.s("x", failures=1), unique="for a while", unique_s=A_DAY_S)
    await jobs.run_to_the_end(await jobs.pipeline())
    open_one = await jobs.submit(add.s(1, 1), unique="open", delay_s=60)
    await jobs.submit(add.s(1, 1), delay_s=60)
    assert await counts(jobs) == [4, 6, 2, 1, 3]
    assert await pruned(jobs, A_DAY_S, MANY) == 0
    assert await pruned(jobs, 0.0, MANY) == 4
    assert await counts(jobs) == [2, 2, 0, 0, 2], "what is open stays, and a key for its time"
    assert (await jobs.submit(add.s(1, 1), unique="open")).job_id == open_one.job_id


async def test_ten_thousand_steps_are_submitted_at_once(jobs: JobsWorld) -> None:
    many = 10_000
    submitted = await jobs.submit(map_over(leased_tag, range(many), then=total.s()))
    assert await counts(jobs) == [1, many + 1, many, 0, 0]
    assert (await jobs.states(submitted.job_id))[-2:] == [("leased_tag", "ready"), ("total", "waiting")]


async def test_a_portion_is_bounded_by_steps_and_has_whole_jobs(jobs: JobsWorld) -> None:
    for _ in range(3):
        await jobs.submit(group(add.s(1, 2), add.s(3, 4)))
    await jobs.run_to_the_end(await jobs.pipeline())
    assert await counts(jobs) == [3, 6, 0, 0, 0]
    assert [await pruned(jobs, 0.0, 3) for _ in range(3)] == [4, 2, 0]
    assert await counts(jobs) == [0, 0, 0, 0, 0]


async def test_of_a_kind_that_is_kept_shorter_what_failed_stays(jobs: JobsWorld) -> None:
    await jobs.submit(add.s(1, 2), kind="check")
    await jobs.submit(reject.s(), kind="check")
    await jobs.submit(add.s(1, 2), kind="other")
    await jobs.run_to_the_end(await jobs.pipeline())
    assert await pruned(jobs, 0.0, MANY, kind="check") == 1
    left = await jobs.rows("select kind, state from job order by id")
    assert [tuple(row) for row in left] == [("check", "failed"), ("other", "succeeded")]
