"""Schedules on PostgreSQL: what is due becomes one job, whoever fires it, and is stopped in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from deploy.native import Runtime
from shared.database import Database
from shared.jobs.context import JobContext
from shared.jobs.schedules.catch_up import NONE, firing_id, schedule_id
from shared.jobs.schedules.cron import Cron, Every
from shared.jobs.schedules.schedule import Overlap, Schedule, ScheduleNotFoundError, TooManyFiringsError
from shared.jobs.schedules.schedules import Schedules
from shared.jobs.signatures import job
from shared.publishing import UnitsOfWork
from tests.integration.databases import migrated_database
from tests.integration.jobs_world import JobsWorld
from tests.integration.world import World, eventually


@job
def dates(told: str, ctx: JobContext) -> list[str]:
    """The due time as its schedule told it, and as its context has it."""
    return [told, ctx.due_at.astimezone(UTC).isoformat()]


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


@pytest.fixture
async def jobs(rabbit_world: World, dsn: str) -> JobsWorld:
    made = JobsWorld(rabbit_world, dsn, dates)
    await made.open()
    return made


def daily(name: str = "daily", **options: Any) -> Schedule:
    return Schedule(name, Cron("0 9 * * *"), lambda due: dates.s(due.isoformat()), **options)


async def declared(jobs: JobsWorld, *schedules: Schedule) -> Schedules:
    made = Schedules(*schedules)
    await made.declare(jobs.units)
    return made


async def away(jobs: JobsWorld, days: int, name: str = "daily") -> list[datetime]:
    """Have nobody looked at the schedule for so many days; return the due times since, those of nine in Seoul."""
    await jobs.rows(
        "update job_schedule set next_due = next_due - make_interval(days => :days), "
        "planned_at = planned_at - make_interval(days => :days) where name = :name returning 1",
        days=days,
        name=name,
    )
    [row] = await jobs.rows("select next_due from job_schedule where name = :name", name=name)
    return [row.next_due + timedelta(days=day) for day in range(days)]


async def due_times(jobs: JobsWorld, name: str = "daily") -> list[datetime]:
    rows = await jobs.rows("select due_at from job where schedule_id = :id order by due_at", id=schedule_id(name))
    return [row.due_at for row in rows]


async def end_jobs(jobs: JobsWorld) -> None:
    await jobs.rows("update job set finished_at = now(), state = 'succeeded', open_steps = 0 returning 1")


async def test_a_firing_is_a_job_whose_logical_date_is_when_it_was_due(jobs: JobsWorld) -> None:
    schedules = await declared(jobs, daily())
    assert await schedules.fire_due(jobs.units) > 0
    assert await due_times(jobs) == []
    [due] = await away(jobs, 1)
    await schedules.fire_due(jobs.units)
    await jobs.run_to_the_end(await jobs.pipeline())
    told, logical = (await jobs.result(firing_id(schedule_id("daily"), due))).value
    assert logical == due.isoformat()
    assert told == due.astimezone(UTC).strftime("%Y-%m-%d") + "T09:00:00+09:00"
    [row] = await jobs.rows("select kind, due_at from job")
    assert (row.kind, row.due_at) == ("daily", due)


async def test_after_a_week_away_the_newest_is_made_up_for_and_then_all_is_as_before(jobs: JobsWorld) -> None:
    schedules = await declared(
        jobs, daily(), daily("none", made_up=NONE), daily("five", made_up=5, overlap="allow")
    )
    missed = [await away(jobs, 7, name) for name in ("daily", "none", "five")]
    await schedules.fire_due(jobs.units)
    await schedules.fire_due(jobs.units)
    assert await due_times(jobs) == missed[0][-1:]
    assert await due_times(jobs, "none") == []
    assert await due_times(jobs, "five") == missed[2][-5:]
    assert await jobs.rows("select 1 from job_schedule where next_due <= now()") == []


async def test_three_schedulers_whose_connections_are_cut_double_nothing_and_miss_nothing(
    jobs: JobsWorld, dsn: str
) -> None:
    declarations = [Schedule(f"beat-{n}", Every(1), lambda due: dates.s(""), overlap="allow") for n in range(8)]
    tasks = []
    databases = []
    for number in range(3):
        settings = jobs.world.settings(postgres_dsn=dsn)
        databases.append(Database(settings, f"scheduler-{number}"))
        units = UnitsOfWork(databases[-1], "tester", jobs.world.telemetry.spans)
        units.submitter = jobs.jobs
        tasks.append(asyncio.create_task(Schedules(*declarations).run(units)))
    try:
        await eventually(lambda: fired(jobs, len(declarations), 2), "all have fired twice")
        await cut(dsn, times=6)
        await eventually(lambda: fired(jobs, len(declarations), 4), "all have fired four times")
        assert not [task.exception() for task in tasks if task.done()], "a scheduler has ended"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=10)
        for database in databases:
            await database.close()
    for declaration in declarations:
        times = await due_times(jobs, declaration.name)
        assert times == [times[0] + timedelta(seconds=n) for n in range(len(times))], "none missed"
    rows = await jobs.rows("select (select count(*) from job) as jobs, (select count(*) from job_step) as steps")
    assert rows[0].jobs == rows[0].steps == len(await jobs.take_outbox()), "none doubled"


async def test_processes_that_declare_at_the_same_time_can_only_meet_on_the_index_that_the_upsert_minds(
    jobs: JobsWorld,
) -> None:
    """On another unique one PostgreSQL may refuse the later of two, rarely: it had ended a scheduler once in two
    hundred cuts."""
    unique = "select count(*) from pg_index where indrelid = 'job_schedule'::regclass and indisunique"
    assert (await jobs.rows(unique))[0].count == 1


async def fired(jobs: JobsWorld, schedules: int, times: int) -> bool:
    rows = await jobs.rows("select count(*) as n from job group by schedule_id")
    return len(rows) == schedules and min(row.n for row in rows) >= times


async def cut(dsn: str, times: int) -> None:
    """End a scheduler's session that is in the middle of a transaction, so many times."""
    connection = await asyncpg.connect(dsn)

    async def one() -> bool:
        return bool(
            await connection.fetch(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'scheduler-%' "
                "and datname = current_database() and state like 'idle in transaction%' limit 1"
            )
        )

    try:
        for _ in range(times):
            await eventually(one, "a scheduler is in the middle of something")
    finally:
        await connection.close()


async def test_a_changed_rule_takes_effect_and_an_unchanged_one_keeps_what_it_waits_for(jobs: JobsWorld) -> None:
    await declared(jobs, daily())
    [due] = await away(jobs, 1)
    await declared(jobs, daily())
    assert [row.next_due for row in await jobs.rows("select next_due from job_schedule")] == [due]
    await declared(jobs, Schedule("daily", Every(10), lambda due: dates.s("")))
    [row] = await jobs.rows("select cron, every_s, next_due > now() as ahead from job_schedule")
    assert (row.cron, row.every_s, row.ahead) == (None, 10, True)


async def test_what_code_declares_no_more_is_disabled_and_comes_back_without_making_up(jobs: JobsWorld) -> None:
    await declared(jobs, daily(), daily("other"))
    others = await declared(jobs, daily("other"))
    await away(jobs, 3)
    assert [row.name for row in await jobs.rows("select name from job_schedule where declared")] == ["other"]
    with pytest.raises(ScheduleNotFoundError):
        async with jobs.units.begin() as uow:
            await others.run_now(uow, "daily")
    again = await declared(jobs, daily(), daily("other"))
    await again.fire_due(jobs.units)
    assert await due_times(jobs) == []


async def test_a_service_without_schedules_disables_those_of_before_and_asks_no_more(jobs: JobsWorld) -> None:
    await declared(jobs, daily())
    async with asyncio.timeout(30):
        await Schedules().run(jobs.units)
    assert await jobs.rows("select 1 from job_schedule where declared") == []


async def test_an_operator_s_pause_survives_a_restart_and_nothing_is_made_up_for_it(jobs: JobsWorld) -> None:
    schedules = await declared(jobs, daily())
    async with jobs.units.begin() as uow:
        await schedules.pause(uow, "daily")
    schedules = await declared(jobs, daily())
    await away(jobs, 3)
    await schedules.fire_due(jobs.units)
    assert await due_times(jobs) == []
    async with jobs.units.begin() as uow:
        await schedules.resume(uow, "daily")
    await schedules.fire_due(jobs.units)
    assert await due_times(jobs) == []
    [due] = await away(jobs, 1)
    await schedules.fire_due(jobs.units)
    assert await due_times(jobs) == [due]


@pytest.mark.parametrize(
    ("overlap", "while_open", "afterwards"), [("skip", 1, 1), ("queue", 1, 2), ("allow", 2, 2)]
)
async def test_what_is_due_while_an_earlier_one_runs_is_left_out_or_waits_or_runs_beside_it(
    jobs: JobsWorld, overlap: Overlap, while_open: int, afterwards: int
) -> None:
    schedules = await declared(jobs, daily(overlap=overlap))
    for _ in range(2):
        await away(jobs, 1)
        await schedules.fire_due(jobs.units)
        # The next one is another day's, or it would be the same firing.
        await jobs.rows("update job set due_at = due_at - interval '1 day' returning 1")
        await jobs.rows("update job set id = gen_random_uuid() returning 1")
    assert len(await due_times(jobs)) == while_open
    await end_jobs(jobs)
    await schedules.fire_due(jobs.units)
    assert len(await due_times(jobs)) == afterwards


async def test_what_waits_runs_one_after_the_other_in_the_order_in_which_it_was_due(jobs: JobsWorld) -> None:
    schedules = await declared(jobs, daily(made_up=3))
    missed = await away(jobs, 3)
    for count in (1, 2, 3):
        await schedules.fire_due(jobs.units)
        await schedules.fire_due(jobs.units)
        assert await due_times(jobs) == missed[:count]
        await end_jobs(jobs)
    assert await jobs.rows("select 1 from job_schedule where cardinality(held) > 0") == []


async def test_once_a_clock_that_ran_ahead_is_set_right_nothing_fires_twice_and_nothing_rests(
    jobs: JobsWorld,
) -> None:
    schedules = await declared(jobs, daily(overlap="allow"))
    [due] = await away(jobs, 1)
    await schedules.fire_due(jobs.units)
    await jobs.rows(
        "update job_schedule set planned_at = now() + interval '1 week', next_due = next_due + interval '1 week' "
        "returning 1"
    )
    await schedules.fire_due(jobs.units)
    [row] = await jobs.rows("select next_due, planned_at <= now() as right from job_schedule")
    assert row.right
    assert row.next_due == due + timedelta(days=1)
    await jobs.rows("update job_schedule set next_due = :due returning 1", due=due)
    await schedules.fire_due(jobs.units)
    assert await due_times(jobs) == [due]
    assert len(await jobs.take_outbox()) == 1


async def test_a_schedule_whose_own_code_raises_stops_no_other(jobs: JobsWorld) -> None:
    def broken(due: datetime) -> Any:
        raise ZeroDivisionError

    schedules = await declared(jobs, Schedule("broken", Cron("0 9 * * *"), broken), daily())
    await away(jobs, 2, "broken")
    await away(jobs, 1)
    assert await schedules.fire_due(jobs.units) > 0
    assert len(await due_times(jobs)) == 1
    assert await due_times(jobs, "broken") == []
    assert len(await jobs.rows("select 1 from job_schedule where name = 'broken' and next_due < now()")) == 1


async def test_people_can_run_a_schedule_now_and_have_the_past_filled_in_once(jobs: JobsWorld) -> None:
    schedules = await declared(jobs, daily(overlap="allow"), daily("queued"))
    async with jobs.units.begin() as uow:
        now_job = await schedules.run_now(uow, "daily")
    assert await jobs.state(now_job) == "waiting"
    first, last = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 10, tzinfo=UTC)

    async def fill(name: str) -> Sequence[UUID]:
        async with jobs.units.begin() as uow:
            return await schedules.backfill(uow, name, first, last)

    filled = await fill("daily")
    assert filled == await fill("daily")
    assert len(filled) == 10
    assert len(await due_times(jobs)) == 11
    assert len(await fill("queued")) == 10
    await schedules.fire_due(jobs.units)
    assert await due_times(jobs, "queued") == [first]


async def test_what_has_not_come_is_not_filled_in_and_too_much_is_refused(jobs: JobsWorld) -> None:
    schedules = await declared(jobs, daily())
    now = datetime.now(UTC)
    async with jobs.units.begin() as uow:
        assert await schedules.backfill(uow, "daily", now, now + timedelta(days=30)) == []
        with pytest.raises(TooManyFiringsError, match="more than"):
            await schedules.backfill(uow, "daily", now - timedelta(days=5_000), now)
        with pytest.raises(ScheduleNotFoundError):
            await schedules.pause(uow, "weekly")


async def test_how_late_a_schedule_is_can_be_asked(jobs: JobsWorld) -> None:
    schedules = await declared(jobs, daily(), daily("other"))
    await away(jobs, 1)
    samples = await schedules.lag_of(jobs.units)["schedules"]()
    lags = {sample.attributes["schedule"]: sample.value for sample in samples}
    assert lags["other"] == 0
    assert 0 < lags["daily"] <= 86_400
