"""The statements of schedules. Nothing here commits; time is PostgreSQL's throughout."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

_NOW = text("select now()")

# A changed rule takes effect from now on, and so does a schedule that comes back; an operator's pause stays.
_DECLARE = text(
    """
    insert into job_schedule as known (id, name, cron, every_s, zone, grace_s, made_up, overlap, declared,
                                       planned_at, next_due)
    values (:id, :name, :cron, :every_s, :zone, :grace_s, :made_up, :overlap, true, now(), :next_due)
    on conflict (id) do update
       set cron = excluded.cron, every_s = excluded.every_s, zone = excluded.zone, grace_s = excluded.grace_s,
           made_up = excluded.made_up, overlap = excluded.overlap, declared = true,
           planned_at = case when known.declared and (known.cron, known.every_s, known.zone)
                                is not distinct from (excluded.cron, excluded.every_s, excluded.zone)
                             then known.planned_at else excluded.planned_at end,
           next_due = case when known.declared and (known.cron, known.every_s, known.zone)
                              is not distinct from (excluded.cron, excluded.every_s, excluded.zone)
                           then known.next_due else excluded.next_due end
    """
)
_DISABLE_OTHERS = text(
    """
    update job_schedule set declared = false, held = '{}'
     where declared and id <> all(cast(:ids as uuid[]))
    """
)

# The row lock makes one scheduler of many fire; the others pass on to what is due besides. A row that was planned
# a second or more from now was planned before the clock was set back; transactions out of turn are closer.
_TAKE_DUE = text(
    """
    select s.*, now() as now from job_schedule s
     where s.id = any(cast(:ids as uuid[])) and s.declared and s.paused_at is null
       and (s.next_due <= now() or s.planned_at > now() + interval '1 second'
            or cardinality(s.held) > 0
               and not exists (select from job where job.schedule_id = s.id and job.finished_at is null))
     order by s.next_due
     limit 1
       for update of s skip locked
    """
)
_LOCK = text(
    "select s.*, now() as now from job_schedule s where s.id = :id for update of s",
)
_IS_OPEN = text("select exists (select from job where schedule_id = :id and finished_at is null)")
_PLAN = text(
    """
    update job_schedule
       set planned_at = now(), next_due = :next_due, held = cast(:held as timestamptz[]),
           last_due = coalesce(:last_due, last_due), last_job = coalesce(:last_job, last_job)
     where id = :id
    """
)
_KNOWN = text("select id from job where id = any(cast(:ids as uuid[]))")
_NEXT_DUE_S = text(
    """
    select cast(extract(epoch from min(next_due) - clock_timestamp()) as float8) from job_schedule
     where id = any(cast(:ids as uuid[])) and declared and paused_at is null
    """
)
_PAUSE = text(
    "update job_schedule set paused_at = coalesce(paused_at, now()) where id = :id and declared returning id"
)
_RESUME = text(
    """
    update job_schedule set paused_at = null, planned_at = now(), next_due = :next_due
     where id = :id and paused_at is not null
    """
)
_LIST = text("select * from job_schedule order by name limit :count_max")
_LAG = text(
    """
    select name, cast(greatest(0, extract(epoch from now() - next_due)) as float8) as lag_s from job_schedule
     where id = any(cast(:ids as uuid[])) and declared and paused_at is null
    """
)


async def now(connection: AsyncConnection) -> datetime:
    """When this transaction began, by PostgreSQL's clock."""
    moment: datetime = (await connection.execute(_NOW)).scalar_one()
    return moment


async def declare(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Have exactly these schedules: new ones wait for their due time, those not among them fire no more."""
    if rows:
        await connection.execute(_DECLARE, sorted(rows, key=lambda row: row["id"]))
    await connection.execute(_DISABLE_OTHERS, {"ids": [row["id"] for row in rows]})


async def take_due(connection: AsyncConnection, ids: Collection[UUID]) -> Row[Any] | None:
    """Lock one of these schedules that has something to do; None when none has, or others hold those that have."""
    return (await connection.execute(_TAKE_DUE, {"ids": list(ids)})).one_or_none()


async def lock(connection: AsyncConnection, schedule: UUID) -> Row[Any] | None:
    """Lock this schedule."""
    return (await connection.execute(_LOCK, {"id": schedule})).one_or_none()


async def is_open(connection: AsyncConnection, schedule: UUID) -> bool:
    """Whether a job of this schedule has not ended.

    A statement of its own, after the one that locks the row: that may have begun before the last holder's commit.
    """
    found: bool = (await connection.execute(_IS_OPEN, {"id": schedule})).scalar_one()
    return found


async def plan(
    connection: AsyncConnection,
    schedule: UUID,
    next_due: datetime,
    held: Sequence[datetime],
    last: tuple[datetime, UUID] | None,
) -> None:
    """Write down what the schedule waits for, which firings it holds back, and what it fired last."""
    last_due, last_job = last or (None, None)
    await connection.execute(
        _PLAN, {"id": schedule, "next_due": next_due, "held": held, "last_due": last_due, "last_job": last_job}
    )


async def known_jobs(connection: AsyncConnection, ids: Sequence[UUID]) -> set[UUID]:
    """Those of these jobs that exist."""
    return set((await connection.execute(_KNOWN, {"ids": ids})).scalars())


async def next_due_s(connection: AsyncConnection, ids: Collection[UUID]) -> float | None:
    """Seconds until the next of these is due, negative when it is overdue; None when nothing is waited for."""
    seconds: float | None = (await connection.execute(_NEXT_DUE_S, {"ids": list(ids)})).scalar()
    return seconds


async def pause(connection: AsyncConnection, schedule: UUID) -> bool:
    """Pause a declared schedule; whether there is one."""
    return (await connection.execute(_PAUSE, {"id": schedule})).one_or_none() is not None


async def resume(connection: AsyncConnection, schedule: UUID, next_due: datetime) -> None:
    """Go on with a paused schedule."""
    await connection.execute(_RESUME, {"id": schedule, "next_due": next_due})


async def list_all(connection: AsyncConnection, count_max: int) -> Sequence[Row[Any]]:
    """All schedules, disabled ones too, by name."""
    return await _rows(connection, _LIST, {"count_max": count_max})


async def lags(connection: AsyncConnection, ids: Collection[UUID]) -> Mapping[str, float]:
    """By name, how many seconds ago each of these should have fired what it has not: 0 when it is on time."""
    return {row.name: row.lag_s for row in await _rows(connection, _LAG, {"ids": list(ids)})}


async def _rows(
    connection: AsyncConnection, statement: TextClause, parameters: Mapping[str, Any]
) -> Sequence[Row[Any]]:
    return (await connection.execute(statement, parameters)).all()
