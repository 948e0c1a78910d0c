"""An engine with one part broken is found out by what `make faults` checks of jobs; the whole engine is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid7

from deploy.native import Runtime
from faults.jobs.checker import JobFindings, check
from faults.jobs.found import read
from faults.jobs.played import (
    CREATE_EFFECTS,
    FIRES_EVERY,
    HANDLERS,
    SCHEDULES,
    begin,
    inline_plus,
    refuse,
    total,
)
from faults.jobs.played import graph as played_graph
from shared.jobs import Signature, chain, group, store
from tests.integration.databases import migrated_database
from tests.integration.jobs_world import JobsWorld
from tests.integration.test_jobs_leased import Leased
from tests.integration.world import World, eventually

NUMBER = 1
SECOND_NETS = (("job", "job_open_steps"), ("job_step", "job_step_waiting_on"))
"""What would refuse a second end of a step: here the engine alone is to, as in `make faults` the inbox."""
ROUNDS_MAX = 20
"""Far more than the graphs here have levels."""


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


class Played:
    """Inline graphs of the played handlers, run without a broker."""

    def __init__(self, world: World, dsn: str) -> None:
        self.jobs = JobsWorld(world, dsn, begin, inline_plus, refuse, total)
        self._dsn = dsn
        self._job: UUID | None = None

    async def open(self) -> None:
        await self.jobs.open()
        async with self.jobs.units.begin() as uow:
            await uow.connection.execute(text(CREATE_EFFECTS))
            await uow.connection.execute(text("truncate played_effect"))
            for table, constraint in SECOND_NETS:
                await uow.connection.execute(text(f"alter table {table} drop constraint if exists {constraint}"))

    async def run(self, graph: Signature, *, again: bool = False) -> JobFindings:
        """Run it, as far as it goes; `again`: each announcement comes twice, as two events that say the same."""
        self._job = (await self.jobs.submit(graph)).job_id
        pipeline = await self.jobs.pipeline()
        for _ in range(ROUNDS_MAX):
            events = await self.jobs.take_outbox()
            for event in events:
                await pipeline(self.jobs.world.deliver([event]))
                if again:
                    await pipeline(self.jobs.world.deliver([msgspec.structs.replace(event, id=str(uuid7()))]))
        return await self.checked()

    async def checked(self) -> JobFindings:
        connection = await asyncpg.connect(self._dsn)
        try:
            moment: datetime = await connection.fetchval("select clock_timestamp()")
            found = await read(connection.fetch, moment, lambda _number: RESULT)
        finally:
            await connection.close()
        assert self._job is not None
        return check({self._job}, found, FIRES_EVERY)


RESULT = (NUMBER + 1) + (NUMBER + 2) + (NUMBER + 3 + 4)
GRAPH = chain(
    begin.s(NUMBER),
    group(inline_plus.s(1), inline_plus.s(2), chain(inline_plus.s(3), inline_plus.s(4))),
    then=total.s(),
)

SOLO = begin.s(RESULT)
"""Its end is another statement's, with a fence of its own."""


@pytest.fixture
async def played(rabbit_world: World, dsn: str) -> Played:
    made = Played(rabbit_world, dsn)
    await made.open()
    return made


def sabotage(patch: pytest.MonkeyPatch, name: str, *changes: tuple[str, str]) -> None:
    """Change a statement of the engine; fails where what is to be changed is not there any more."""
    told = getattr(store, name).text
    for sound, broken in changes:
        assert sound in told, f"{name} has no {sound!r} to sabotage"
        told = told.replace(sound, broken)
    patch.setattr(store, name, text(told))


def no_fence(patch: pytest.MonkeyPatch) -> None:
    sabotage(patch, "_TAKE_STEPS", ("s.state, s.attempt,", "'ready' as state, 1 as attempt,"))
    sabotage(patch, "_END_STEPS", ("and s.attempt = told.attempt", ""), ("then s.state = 'ready'", "then true"))


def no_fence_of_solos(patch: pytest.MonkeyPatch) -> None:
    sabotage(patch, "_TAKE_STEPS", ("s.state, s.attempt,", "'ready' as state, 1 as attempt,"))
    sabotage(patch, "_END_SOLOS", ("and s.attempt = told.attempt", ""), ("then s.state = 'ready'", "then true"))


def join_that_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    sabotage(patch, "_ADVANCE_CHILDREN", (" or s.waiting_on > locked.count then", " then"))


def join_that_counts_a_parent_for_each_batch(patch: pytest.MonkeyPatch) -> None:
    sabotage(patch, "_ADVANCE_CHILDREN", ("count(*)::integer as count", "0 as count"))


async def test_the_graphs_and_the_schedule_that_are_played_end_as_expected(world: World, dsn: str) -> None:
    """In one process, with a worker and its children, over the broker."""
    leased = Leased(world, dsn)
    jobs = JobsWorld(world, dsn, *HANDLERS)
    await jobs.open()
    leased.units = jobs.units
    async with jobs.units.begin() as uow:
        await uow.connection.execute(text(CREATE_EFFECTS))
        await uow.connection.execute(text("truncate played_effect"))
    await SCHEDULES.declare(jobs.units)
    numbers = (3, 4)  # one is refused
    submitted = {(await jobs.submit(played_graph(number))).job_id for number in numbers}
    async with jobs.running(), leased.worker(jobs=jobs.jobs, children=True, worker_children_max=1):
        await eventually(lambda: _fired(jobs), "the schedule fires")
        await jobs.ended(len(numbers) + 1)
        await eventually(lambda: _none_is_open(jobs), "all have ended")
    connection = await asyncpg.connect(dsn)
    try:
        found = await read(connection.fetch, await connection.fetchval("select clock_timestamp()"))
    finally:
        await connection.close()
    verdict = check(submitted, replace(found, next_due=None), FIRES_EVERY)
    assert verdict.sound, verdict
    assert verdict.firings >= 1


async def _fired(jobs: JobsWorld) -> bool:
    await SCHEDULES.fire_due(jobs.units)
    return bool(await jobs.rows("select 1 from job where schedule_id is not null"))


async def _none_is_open(jobs: JobsWorld) -> bool:
    return not await jobs.rows("select 1 from job where finished_at is null")


async def test_an_engine_that_is_whole_is_found_sound_though_everything_comes_twice(played: Played) -> None:
    for jobs, steps, graph in ((1, 6, GRAPH), (2, 7, SOLO)):
        verdict = await played.run(graph, again=True)
        assert verdict.sound, verdict
        assert (verdict.jobs, verdict.steps) == (jobs, steps)


@pytest.mark.parametrize(
    ("sabotaged", "graph", "kind"),
    [
        (no_fence, GRAPH, "doubled"),
        (no_fence_of_solos, SOLO, "doubled"),
        (join_that_does_not_wait, GRAPH, "wrong"),
        (join_that_counts_a_parent_for_each_batch, GRAPH, "unended"),
    ],
)
async def test_a_broken_engine_is_found_out(
    played: Played,
    monkeypatch: pytest.MonkeyPatch,
    sabotaged: Callable[[pytest.MonkeyPatch], None],
    graph: Signature,
    kind: str,
) -> None:
    sabotaged(monkeypatch)
    assert (await played.run(graph, again=True)).damage()[kind]


async def test_an_engine_that_skips_nothing_behind_a_failed_step_is_found_out(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_arguments: Any) -> list[Any]:
        return []

    monkeypatch.setattr(store, "skip_steps", nothing)
    verdict = await played.run(chain(begin.s(NUMBER), refuse.s(), inline_plus.s(1)))
    assert verdict.unended
