"""The history of jobs as a source of the archive: jobs that ended long ago, with all that belongs to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.jobs.archive.lines import Lines, PortionTooLargeError
from shared.jobs.archive.source import Portion, Source, recording

JOBS_MAX: Final = 500
STEPS_MAX: Final = 500
"""Of a portion, unless one job alone has more: a job is archived as a whole. With results of 64 KiB it fits."""
_LINES_AT_ONCE: Final = 500

# By the primary key, in the order of time; an id is older than its job's end. What was submitted long ago and has
# not ended, or not long ago, is passed over.
_PICK = text(
    """
    with old as (
      select id, finished_at, step_count from job
       where id > cast(:after as uuid) and id < cast(:before_id as uuid) and finished_at < :before
       order by id limit :jobs_max)
    select id, finished_at from (
      select *, sum(step_count) over (order by id) - step_count as ahead from old) counted
     where ahead < :steps_max order by id
    """
)
_LINES = text(
    """
    with steps as (select id from job_step where job_id = any(cast(:ids as uuid[])))
    select line from (
      select 1 as part, j.id, 0 as number, json_build_object('table', 'job', 'row', row_to_json(j))::text as line
        from job j where j.id = any(cast(:ids as uuid[]))
      union all
      select 2, s.job_id, s.number, json_build_object('table', 'job_step', 'row', row_to_json(s))::text
        from job_step s where s.job_id = any(cast(:ids as uuid[]))
      union all
      select 3, e.child, e.position, json_build_object('table', 'job_edge', 'row', row_to_json(e))::text
        from job_edge e where e.child in (select id from steps)
      union all
      select 4, a.step_id, a.attempt, json_build_object('table', 'job_attempt', 'row', row_to_json(a))::text
        from job_attempt a where a.step_id in (select id from steps)
    ) all_lines order by part, id, number, line
    """
)
_RECORD = recording(
    """
    picked as (
      select id from job where id = any(cast(:ids as uuid[])) and finished_at < cast(:before as timestamptz)),
    steps as (delete from job_step where job_id in (select id from picked) returning id),
    edges as (delete from job_edge where child in (select id from steps) returning child),
    attempts as (delete from job_attempt where step_id in (select id from steps) returning step_id),
    keys as (
      delete from job_unique
       where job_id in (select id from picked) and (expires_at is null or expires_at <= now())),
    jobs as (delete from job where id in (select id from picked) returning id),
    gone as (
      select id from jobs union all select id from steps
      union all select child from edges union all select step_id from attempts)
    """
)


async def read(connection: AsyncConnection, before: datetime, after: Any, lines: Lines) -> Portion | None:
    """As `Read` says; `after` is the last job's id. Raises `PortionTooLargeError`."""
    told = {
        "after": UUID(int=0) if after is None else UUID(after),
        # No id of this moment or later is less (RFC 9562, 5.7).
        "before_id": UUID(int=max(0, int(before.timestamp() * 1_000)) << 80),
        "before": before,
        "jobs_max": JOBS_MAX,
        "steps_max": STEPS_MAX,
    }
    picked: list[Row[Any]] = list((await connection.execute(_PICK, told)).all())
    if not picked:
        return None
    ids = [row.id for row in picked]
    found = await connection.stream(_LINES, {"ids": ids})
    try:
        async for some in found.partitions(_LINES_AT_ONCE):
            await lines.add([row.line for row in some])
    except PortionTooLargeError as error:
        raise PortionTooLargeError(f"jobs {ids[0]} to {ids[-1]}: {error}") from None
    ends = [row.finished_at for row in picked]
    return Portion(min(ends), max(ends), str(ids[-1]), {"ids": ids, "before": before})


HISTORY: Final = Source("jobs", read, _RECORD)
