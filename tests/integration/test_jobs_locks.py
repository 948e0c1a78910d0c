"""Leases and ends of steps that meet what others do then: locks are in one order, and each end counts once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from deploy.native import Runtime
from shared.jobs.advance import Ended, EndedJob, FenceLostError, advance
from shared.jobs.control import cancel
from shared.jobs.signatures import group
from shared.jobs.taking import Taking
from shared.publishing import Cause
from tests.integration.databases import migrated_database
from tests.integration.jobs_world import JobsWorld, add, leased_tag
from tests.integration.world import World, eventually

WORKER = uuid4()
REGISTER = """
insert into job_worker (id, process, host, pid, slots, running, draining, started_at, beat_at, alive_until)
select id, 'tests', 'here', 1, 1, 0, false, now(), now(), now() + make_interval(secs => seconds)
  from unnest(cast(:ids as uuid[]), cast(:seconds as float8[])) as told(id, seconds)
"""
HAS_WRITTEN = "select pg_current_xact_id_if_assigned() is not null"
RUN = "update job_step set state = 'running', leased_by = :worker where id = :id"
LOCK = "select from job_step where id = :id for no key update"
FREE = "select id from job_step where id = any(cast(:ids as uuid[])) for no key update skip locked"
BLOCKED = """
select 1 from pg_locks join pg_stat_activity using (pid) where datname = current_database() and not granted
"""


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


@pytest.fixture
async def jobs(rabbit_world: World, dsn: str) -> JobsWorld:
    made = JobsWorld(rabbit_world, dsn, leased_tag)
    await made.open()
    return made


async def test_steps_that_two_statements_end_are_locked_in_the_order_of_their_ids(jobs: JobsWorld) -> None:
    await jobs.submit(group(add.s(1, 2), add.s(3, 4)))
    await jobs.submit(add.s(5, 6))
    ids = [row.id for row in await jobs.rows("select id from job_step where handler = 'add' order by id")]
    ends = [_ended(ids[2], is_solo=True), _ended(ids[1]), _ended(ids[0])]
    async with asyncio.TaskGroup() as tasks, jobs.database.transaction() as holder:
        await holder.execute(text(LOCK), {"id": ids[1]})
        ending = tasks.create_task(_end(jobs, ends))
        await eventually(lambda: jobs.rows(BLOCKED), "it waits for the step that is held")
        assert [row.id for row in await jobs.rows(FREE, ids=ids)] == [ids[2]]
    assert {job.state for job in ending.result()} == {"succeeded"}
    assert not await jobs.rows("select id from job_step where handler = 'add' and state <> 'succeeded'")


async def test_a_solo_step_ends_once_though_its_cancelling_is_committed_meanwhile(jobs: JobsWorld) -> None:
    submitted = await jobs.submit(leased_tag.si(1))
    [step_id] = submitted.outputs
    await _update(jobs, RUN, id=step_id, worker=WORKER)
    await _update(jobs, "update job set state = 'running'")
    ends = [_ended(step_id, is_solo=True, worker=WORKER)]
    async with asyncio.TaskGroup() as tasks, jobs.units.begin() as canceller:
        assert await cancel(canceller, submitted.job_id) == "running"
        ending = tasks.create_task(_end(jobs, ends))
        await eventually(lambda: jobs.rows(BLOCKED), "it waits for the job that is being cancelled")
    assert [job.state for job in ending.result()] == ["succeeded"]
    assert await jobs.state(submitted.job_id) == "succeeded"
    with pytest.raises(FenceLostError):
        await _end(jobs, ends)


async def test_a_look_at_an_empty_queue_writes_nothing_and_a_worker_whose_time_is_over_takes_nothing(
    jobs: JobsWorld,
) -> None:
    living, dead = [uuid4(), uuid4()]
    await _update(jobs, REGISTER, ids=[living, dead], seconds=[600, -1])
    assert await _taken(jobs, living) == await _taken(jobs, living, uuid4()) == (0, False)
    [step] = (await jobs.submit(leased_tag.si(1))).outputs
    for worker in dead, uuid4():
        assert await _taken(jobs, worker) == await _taken(jobs, worker, step) == (0, False)
    assert await _taken(jobs, living, step, handler="another") == (0, False)
    assert await _taken(jobs, living, step) == (1, True)
    assert await _taken(jobs, living, step) == await _taken(jobs, living) == (0, False)
    await jobs.submit(leased_tag.si(1))
    assert await _taken(jobs, living) == (1, True)


async def _taken(
    jobs: JobsWorld, worker: UUID, step: UUID | None = None, handler: str = leased_tag.name
) -> tuple[int, bool]:
    """How many steps it leases, of all or of that one, and whether it has written anything."""
    async with jobs.database.transaction() as connection:
        session: Any = (await connection.get_raw_connection()).driver_connection
        taking = Taking(connection, session)
        if step is None:
            rows = await taking.take(worker, leased_tag.queue, [handler], 10)
        else:
            await connection.execute(text("select"))  # now the transaction has begun, for the driver too
            rows = await taking.take_one(worker, leased_tag.queue, [handler], step)
        return len(rows), await connection.scalar(text(HAS_WRITTEN))


async def _end(jobs: JobsWorld, ended: Sequence[Ended]) -> Sequence[EndedJob]:
    async with jobs.database.transaction() as connection:
        return (await advance(connection, ended))[1]


async def _update(jobs: JobsWorld, statement: str, **parameters: Any) -> None:
    async with jobs.database.transaction() as connection:
        await connection.execute(text(statement), parameters)


def _ended(step_id: UUID, *, is_solo: bool = False, worker: UUID | None = None) -> Ended:
    cause = Cause(None, None, None)
    return Ended(
        step_id=step_id, attempt=1, state="succeeded", cause=cause, result="1", is_solo=is_solo, worker=worker
    )
