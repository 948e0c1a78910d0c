"""Leased steps on a real PostgreSQL: each ends once, whatever happens to its worker, its child and its lease."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from deploy.native import Runtime
from shared.database import Database
from shared.jobs import reading
from shared.jobs.control import cancel
from shared.jobs.due import make_due
from shared.jobs.jobs import Jobs
from shared.jobs.leased import Worker
from shared.jobs.signatures import Signature, chain, group
from shared.process.parts import Parts
from shared.publishing import Submitted, UnitsOfWork
from tests.forked import Forked, fork
from tests.integration.databases import migrated_database
from tests.integration.jobs_world import JobsWorld, add, tag
from tests.integration.leased_steps import (
    GATE,
    IN_THE_LOOP,
    JOBS,
    compute,
    counts,
    deaf,
    ends_its_worker,
    gated,
    looks,
    quick,
    waits,
)
from tests.integration.world import World, eventually, metadata

TABLES = "job, job_step, job_edge, job_attempt, job_unique, job_worker, inbox, outbox, effect"
QUICKLY = {"worker_beat_interval_s": 0.2, "worker_beat_limit_s": 3.0, "worker_poll_interval_s": 5.0}
"""A machine with two busy cores beats in time, and a lost worker is found within seconds."""


class Leased:
    """One test's database, and what looks at it."""

    def __init__(self, world: World, dsn: str) -> None:
        self.world = world
        self.settings = world.settings(postgres_dsn=dsn, shutdown_grace_s=8.0, **QUICKLY)

    async def open(self) -> None:
        self.database = Database(self.settings, self.world.name)
        self.world.stack.push_async_callback(self.database.close)
        self.units = UnitsOfWork(self.database, "leased", self.world.telemetry.spans)
        self.units.submitter = JOBS
        async with self.database.engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
            await connection.execute(text(f"truncate {TABLES} restart identity"))
        due = asyncio.create_task(make_due(self.units, JOBS.batch))
        self.world.stack.callback(due.cancel)

    async def submit(self, graph: Signature, **options: Any) -> Submitted:
        async with self.units.begin() as uow:
            return await uow.submit(graph, **options)

    async def rows(self, query: str, **parameters: Any) -> list[Any]:
        async with self.database.transaction() as connection:
            result = await connection.execute(text(query), parameters)
            return list(result) if result.returns_rows else []

    async def effects(self) -> list[tuple[str, int]]:
        rows = await self.rows("select key, number from effect order by position")
        return [(row.key, row.number) for row in rows]

    async def attempts(self) -> list[tuple[int, str | None]]:
        return [
            (row.attempt, row.outcome) for row in await self.rows("select * from job_attempt order by attempt")
        ]

    async def ended(self, job: Submitted) -> reading.Result:
        async def result() -> Any:
            query = "select 1 from job where id = :id and finished_at is not null"
            if not await self.rows(query, id=job.job_id):
                return None
            async with self.database.transaction() as connection:
                return await reading.result_of(connection, job.job_id)

        ended: reading.Result = await eventually(result, "the job ends")
        return ended

    async def told(self, job: Submitted) -> dict[str, Any]:
        """The progress of the job's one step, once it is written."""
        query = "select progress from job_step where job_id = :id and progress is not null"
        [row] = await eventually(lambda: self.rows(query, id=job.job_id), "progress is written")
        found: dict[str, Any] = row.progress
        return found

    @asynccontextmanager
    async def worker(self, *, children: bool = False, jobs: Jobs = JOBS, **settings: Any) -> AsyncIterator[Worker]:
        """A worker in this process; leaving drains it. Starting `children` costs a second."""
        parts = replace(self._parts(), units=self.units, settings=self.settings.model_copy(update=settings))
        worker = Worker(parts, jobs.handlers if children else IN_THE_LOOP, jobs.batch)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=60)
            if not task.cancelled():
                task.result()

    def _parts(self) -> Parts:
        unused: dict[str, Any] = dict.fromkeys(Parts.__dataclass_fields__)
        return Parts(**{**unused, "process_name": self.world.name, "telemetry": self.world.telemetry})

    async def worker_process(self) -> Forked:
        """A worker in a process of its own; what is still alive at the end of the test is killed."""
        given = {
            "broker": "rabbit",
            "http_port": 1,
            "postgres_dsn": self.settings.postgres_dsn,
            "redis_url": self.settings.redis_url,
            "rabbit_url": self.settings.rabbit_url,
            "shutdown_grace_s": 8.0,
            **QUICKLY,
        }
        environment = {f"TANDEM_{name.upper()}": str(value) for name, value in given.items()}
        process = await fork(
            "tests.integration.leased_steps", environment={"PATH": os.environ["PATH"], **environment}
        )
        self.world.stack.callback(process.kill)
        return process

    async def worker_ids(self) -> set[UUID]:
        return {row.id for row in await self.rows("select id from job_worker")}


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


@pytest.fixture
async def leased(rabbit_world: World, dsn: str) -> Leased:
    made = Leased(rabbit_world, dsn)
    await made.open()
    return made


# -- what a worker does


async def test_a_graph_of_leased_steps_in_the_loop_and_in_children_ends_with_its_effects(leased: Leased) -> None:
    async with leased.worker(children=True):
        job = await leased.submit(chain(group(quick.s("a"), quick.s("b")), compute.si(4)))
        result = await leased.ended(job)
    assert result.value["square"] == 16
    assert result.value["pid"] != os.getpid()
    assert sorted(await leased.effects()) == [("a", 1), ("b", 1), ("compute", 1)]
    [row] = await leased.rows("select * from job_attempt where peak_rss_mib is not null")
    assert row.outcome == "succeeded"
    assert row.started_at <= row.ended_at


async def test_inline_and_leased_steps_of_one_graph_alternate_over_the_broker(world: World, dsn: str) -> None:
    jobs = JobsWorld(world, dsn, quick, compute)
    await jobs.open()
    leased = Leased(world, dsn)
    leased.units = jobs.units
    graph = chain(add.s(1, 2), compute.si(3), group(tag.s(name="a"), quick.si("b")), tag.s(name="c"))
    async with jobs.running(), leased.worker(jobs=jobs.jobs, children=True):
        job = await jobs.submit(graph)
        await jobs.ended()
    result = await jobs.result(job.job_id)
    [name, [[first, computed], second]] = result.value
    assert (name, first, computed["square"], second) == ("c", "a", 9, "b1")
    effects = await jobs.rows("select key from effect order by key")
    assert [row.key for row in effects] == ["a", "b", "c", "compute"]


async def test_the_most_urgent_step_is_taken_first_and_no_more_than_there_are_slots(leased: Leased) -> None:
    first = await leased.submit(waits.s())
    async with leased.worker(worker_slots={"slow": 1}):
        await leased.told(first)
        low, high = await leased.submit(counts.s(0)), await leased.submit(counts.s(0), priority=5)
        states = await leased.rows("select state from job_step where state = 'running'")
        assert len(states) == 1
        async with leased.units.begin() as uow:
            await cancel(uow, first.job_id)
        await leased.ended(high)
        await leased.ended(low)
    started = await leased.rows(
        "select s.job_id from job_step s where s.handler = 'counts' order by s.started_at, s.finished_at"
    )
    assert [row.job_id for row in started] == [high.job_id, low.job_id]


async def test_a_failed_attempt_is_tried_again_and_leaves_no_effect(leased: Leased) -> None:
    async with leased.worker(children=True):
        await leased.ended(await leased.submit(chain(quick.s("a", failures=1), compute.si(3, how="raise once"))))
    assert await leased.effects() == [("a", 2), ("compute", 2)]
    assert await leased.attempts() == [(1, "failed"), (1, "failed"), (2, "succeeded"), (2, "succeeded")]


async def test_a_step_that_always_fails_ends_after_its_retries_with_its_error(leased: Leased) -> None:
    async with leased.worker(children=True):
        without = await leased.submit(compute.s(3, how="iterate"))
        assert (
            (await leased.ended(without))
            .error["message"]
            .startswith("a step in a process of its own has no cursor")
        )
        assert await leased.attempts() == [(1, "failed")], "it is tried no second time"
        await leased.rows("truncate job, job_step, job_attempt")
        job = await leased.submit(chain(compute.s(3, how="raise"), quick.si("behind")))
        result = await leased.ended(job)
    assert result.outcome is reading.Outcome.FAILED
    [step, behind] = await leased.rows("select state, error from job_step order by number")
    assert (step.state, behind.state) == ("failed", "skipped")
    error = step.error
    assert (error["type"], error["message"]) == ("LookupError", "not found")
    assert 'raise LookupError("not found")' in error["stack"]
    assert await leased.effects() == []
    assert await leased.attempts() == [(1, "failed"), (2, "failed"), (3, "failed")]


async def test_a_step_reads_what_is_committed_and_writes_nothing_beside_what_it_tells(leased: Leased) -> None:
    async with leased.worker():
        counted = await leased.ended(await leased.submit(chain(quick.s("a"), looks.si())))
        refused = await leased.ended(await leased.submit(looks.s(writes=True)))
    assert counted.value == 1
    assert refused.outcome is reading.Outcome.FAILED
    assert "read-only" in refused.error["message"]
    assert await leased.effects() == [("a", 1)]


async def test_what_effects_raise_is_a_failure_of_the_attempt_and_of_no_other(leased: Leased) -> None:
    async with leased.worker():
        bad = [await leased.submit(quick.s("\0")) for _ in range(2)]
        good = [await leased.submit(quick.s(f"good {n}")) for n in range(5)]
        assert {(await leased.ended(job)).outcome for job in good} == {reading.Outcome.DONE}
        assert {(await leased.ended(job)).outcome for job in bad} == {reading.Outcome.FAILED}
    assert len(await leased.effects()) == 5


# -- what is killed


async def test_a_child_killed_in_a_step_costs_one_attempt(leased: Leased) -> None:
    async with leased.worker(children=True):
        job = await leased.submit(compute.s(5, how="sleep"))
        pid = int((await leased.told(job))["current"])
        os.kill(pid, signal.SIGKILL)
        assert (await leased.ended(job)).value["square"] == 25
    assert await leased.effects() == [("compute", 2)]
    [row] = await leased.rows("select error from job_attempt where attempt = 1")
    assert row.error["message"] == "the child ended by SIGKILL"


async def test_a_killed_worker_s_step_runs_again_elsewhere_with_one_effect(leased: Leased) -> None:
    process = await leased.worker_process()
    job = await leased.submit(waits.s())
    await leased.told(job)
    process.kill()
    async with leased.worker():
        assert (await leased.ended(job)).value == "waited"
        assert len(await leased.worker_ids()) == 1
    assert await leased.effects() == [("waits", 2)]
    assert await leased.attempts() == [(1, "lost"), (2, "succeeded")]
    assert await leased.worker_ids() == set()


async def test_a_job_that_kills_its_worker_each_time_is_parked_after_its_retries(leased: Leased) -> None:
    job = await leased.submit(ends_its_worker.s())
    for _ in range(2):
        process = await leased.worker_process()
        assert await process.wait(60) == -signal.SIGKILL
    async with leased.worker():
        assert (await leased.ended(job)).outcome is reading.Outcome.FAILED
    assert await leased.attempts() == [(1, "lost"), (2, "lost")]
    [row] = await leased.rows("select error from job_step")
    assert row.error["type"] == "WorkerLost"
    assert await leased.effects() == []


async def test_a_stopped_worker_that_wakes_up_late_stops_its_steps_and_begins_anew(leased: Leased) -> None:
    """A zombie: its step was given to another while it stood still."""
    process = await leased.worker_process()
    job = await leased.submit(deaf.s())
    await leased.told(job)
    [zombie] = await leased.worker_ids()
    process.signal(signal.SIGSTOP)
    async with leased.worker():
        query = "select 1 from job_step where state = 'running' and leased_by <> :id"
        await eventually(lambda: leased.rows(query, id=zombie), "another has the step")
        process.signal(signal.SIGCONT)
        await eventually(lambda: _more_than_one(leased, zombie), "the zombie is a worker again, under another id")
        assert await leased.effects() == []
        async with leased.units.begin() as uow:
            await cancel(uow, job.job_id)
        await leased.ended(job)
    assert await leased.effects() == []
    assert await leased.attempts() == [(1, "lost"), (2, "cancelled")]


async def _more_than_one(leased: Leased, gone: UUID) -> bool:
    ids = await leased.worker_ids()
    return len(ids) == 2 and gone not in ids


async def test_a_late_completion_has_no_effect_even_of_a_worker_that_does_not_know_that_it_is_lost(
    leased: Leased,
) -> None:
    GATE.clear()
    async with leased.worker(worker_beat_interval_s=60.0, worker_beat_limit_s=180.0) as late:
        job = await leased.submit(gated.s())
        await eventually(lambda: leased.rows("select 1 from job_attempt"), "it runs")
        await leased.rows("update job_worker set alive_until = now()")
        await eventually(lambda: leased.rows("select 1 from job_step where state = 'ready'"), "it is taken away")
        GATE.set()
        await eventually(lambda: _holds_nothing(late), "the late completion is refused")
        assert await leased.effects() == []
        async with leased.worker():
            assert (await leased.ended(job)).value == "attempt 2"
    assert await leased.effects() == [("gated", 2)]
    assert await leased.attempts() == [(1, "lost"), (2, "succeeded")]


async def _holds_nothing(worker: Worker) -> bool:
    return not worker._completions.held


# -- cancelling, progress, checkpoints, draining


async def test_running_steps_are_cancelled_and_what_follows_never_runs(leased: Leased) -> None:
    async with leased.worker(children=True, worker_beat_interval_s=60.0, worker_beat_limit_s=180.0):
        for step in (waits.s(), compute.s(1, how="sleep")):
            job = await leased.submit(chain(step, quick.si("behind")))
            await leased.told(job)
            async with leased.units.begin() as uow:
                assert await cancel(uow, job.job_id) == "running"
            assert (await leased.ended(job)).outcome is reading.Outcome.CANCELLED
    assert {row.state for row in await leased.rows("select state from job_step")} == {"cancelled"}
    assert await leased.effects() == []
    assert await leased.attempts() == [(1, "cancelled")] * 2


async def test_a_step_goes_on_behind_its_last_checkpoint_with_one_effect_a_chunk(leased: Leased) -> None:
    process = await leased.worker_process()
    job = await leased.submit(counts.s(6, pause_at=3))
    assert await leased.told(job) == {"current": 3.0, "total": 6.0, "message": ""}
    process.kill()
    async with leased.worker():
        assert (await leased.ended(job)).value == 3
    assert await leased.effects() == [(f"number {n}", 1 if n < 3 else 2) for n in range(6)]


async def test_a_worker_that_is_told_to_stop_gives_back_what_does_not_end_in_time(leased: Leased) -> None:
    process = await leased.worker_process()
    job = await leased.submit(counts.s(4, pause_at=2))
    await leased.told(job)
    process.terminate()
    assert await process.wait(60) == 0
    [row] = await leased.rows("select state, leased_by, attempt from job_step")
    assert (row.state, row.leased_by, row.attempt) == ("ready", None, 1)
    assert await leased.worker_ids() == set()


async def test_what_was_leased_ahead_of_a_long_step_goes_back_to_others(leased: Leased) -> None:
    """Short steps have taught the worker to lease ahead; then comes a long one."""
    async with leased.worker(worker_slots={"slow": 1}) as worker:
        await leased.ended(await leased.submit(group(*(counts.si(0) for _ in range(20)))))
        assert worker._slots["slow"].ahead > 0
        long = await leased.submit(waits.s(), priority=1)
        short = await leased.submit(counts.si(0))
        await leased.told(long)
        async with leased.worker():
            await leased.ended(short)
        async with leased.units.begin() as uow:
            await cancel(uow, long.job_id)
        await leased.ended(long)


async def test_a_commit_whose_answer_was_lost_strands_no_step(leased: Leased) -> None:
    """PostgreSQL says that a step is this worker's, and the worker knows nothing of it."""
    job = await leased.submit(quick.s("a"))
    await leased.rows("update job_step set state = 'waiting'")
    async with leased.worker():
        [worker] = await eventually(leased.worker_ids, "there is a worker")
        await leased.rows("update job_step set state = 'running', leased_by = :worker", worker=worker)
        await leased.ended(job)
    assert await leased.effects() == [("a", 1)]
