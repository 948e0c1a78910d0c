"""The statements that change jobs, each set-based: arrays in, rows out. Nothing here commits.

Rows are locked in one order everywhere, so that nobody waits in a circle: steps by id, then jobs by id. A step's
id is greater than its parents'.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

Columns = Mapping[str, Sequence[Any]]
"""The parameters of a statement by name, a list for each, all equally long."""
STEP_CHANNEL = "tandem_job_step"
"""Notified with what `ready` makes of a leased step; with nothing, where one of any handler may be ready."""

# Takes a key that is free, that has expired, or whose job has ended; else returns nothing.
_TAKE_KEY = text(
    """
    insert into job_unique as held (key, job_id, expires_at)
    values (:key, :job_id, now() + make_interval(secs => cast(:unique_s as float8)))
    on conflict (key) do update set job_id = excluded.job_id, expires_at = excluded.expires_at
     where case when held.expires_at is not null then held.expires_at <= now()
                else not exists (select from job where job.id = held.job_id and job.finished_at is null) end
    returning job_id
    """
)
_HOLDER_OF_KEY = text("select job_id from job_unique where key = :key")

INPUTS = """
      left join lateral (
        select json_agg(case when p.state = 'succeeded' then p.result
                             when e.on_failure = 'pass' then json_build_object('error', p.error) end
                        order by e.position) as inputs,
               json_agg(json_build_array(e.position, p.result_object))
                 filter (where p.result_object is not null and p.state = 'succeeded') as stored
          from job_edge e join job_step p on p.id = e.parent
         where s.takes <> 'nothing' and e.child = s.id) given on true
"""
"""What a step `s` gets of its parents: `given.inputs`, and where those are that are stored elsewhere."""


def _given(**types: str) -> str:
    """Rows of arrays, a parameter for each column.

    How many there are PostgreSQL is not shown, and expects ten. Shown 500, it read the whole table for them, as
    long as that had fewer than some ten thousand rows.
    """
    arrays = ", ".join(f"(select cast(:{name} as {kind}[]))" for name, kind in types.items())
    return f"unnest({arrays}) as given({', '.join(types)})"


_IDS = "any(array(select unnest(cast(:ids as uuid[]))))"
"""One of the ids that are told; how many, PostgreSQL is not shown either."""

# What the handlers of these steps are called with; locks the steps, so that nobody else ends them meanwhile.
_TAKE_STEPS = text(
    f"""
    select s.id, s.job_id, s.state, s.attempt, s.first_attempt, s.handler, s.leased, s.args, s.takes,
           s.output is not null as is_output, j.step_count = 1 as is_solo, j.due_at, given.inputs,
           given.stored
      from job_step s
      join job j on j.id = s.job_id
{INPUTS}     where s.id = {_IDS}
     order by s.id
       for no key update of s
    """  # noqa: S608  constants
)

_EXISTING = text(f"select id from job_step where id = {_IDS}")  # noqa: S608  a constant
_LOCK_STEPS = text(f"select from job_step where id = {_IDS} order by id for no key update")

# The fence: only the attempt that was taken ends, once. Another attempt is one number higher. What is told and
# what is locked are one, and joined once: of two, PostgreSQL compared each with each where it expected few.
_END_STEPS = text(
    f"""
    with told as (
      select given.*
        from {
        _given(
            id="uuid",
            attempt="integer",
            state="text",
            result="text",
            stored="text",
            error="text",
            wait_s="float8",
            worker="uuid",
        )
    }
        join job_step s using (id) order by s.id for no key update of s)
    update job_step s
       set state = told.state,
           result = cast(told.result as json),
           result_object = cast(told.stored as json),
           error = cast(told.error as json),
           attempt = s.attempt + (told.state = 'scheduled')::integer,
           due_at = case when told.state = 'scheduled' then now() + make_interval(secs => told.wait_s)
                         else s.due_at end,
           leased_by = null,
           finished_at = case when told.state <> 'scheduled' then now() end
      from told
     where s.id = told.id and s.attempt = told.attempt
       and case when told.worker is null then s.state = 'ready'
                else s.state = 'running' and s.leased_by = told.worker end
    returning s.id, s.job_id, s.state, s.output is not null as is_output,
              exists (select from job_edge where parent = s.id) as has_children
    """  # noqa: S608  constants
)

# The same, and the ends of their jobs, for steps that succeeded and were alone in theirs: nothing waits for them.
# The jobs are in no order: who locks such a job has its step already, or holds nothing else (a cancel of it while
# the step runs). The answer is one row of arrays.
_END_SOLOS = text(
    f"""
    with told as (
      select given.*
        from {_given(id="uuid", attempt="integer", result="text", worker="uuid")}
        join job_step s using (id) order by s.id for no key update of s),
    ended as (
      update job_step s
         set state = 'succeeded', result = cast(told.result as json), error = null, leased_by = null,
             finished_at = now()
        from told
       where s.id = told.id and s.attempt = told.attempt
         and case when told.worker is null then s.state = 'ready'
                  else s.state = 'running' and s.leased_by = told.worker end
      returning s.id, s.job_id),
    finished as (
      update job j
         set open_steps = j.open_steps - 1, state = 'succeeded', finished_at = now(),
             expires_at = now() + make_interval(secs => j.result_ttl_s)
        from ended where j.id = ended.job_id
      returning ended.id, j.kind,
                extract(epoch from now() - greatest(j.submitted_at, j.due_at))::float8 as duration_s)
    select array_agg(kind) as kinds, array_agg(duration_s) as durations_s,
           case when count(*) < cardinality(cast(:id as uuid[])) then array_agg(id) end as ids
      from finished
    """  # noqa: S608  constants
)

# The same of one that nobody has read: its answer may come when it is committed. So of a step that does not exist
# it is not the answer that says so: the statement fails, by a division by zero.
END_SOLO = text(
    """
    with ended as (
      update job_step
         set state = 'succeeded', result = cast(:result as json), error = null, leased_by = null,
             finished_at = now()
       where id = cast(:step_id as uuid) and attempt = cast(:attempt as integer) and state = 'ready'
      returning job_id),
    finished as (
      update job j
         set open_steps = j.open_steps - 1, state = 'succeeded', finished_at = now(),
             expires_at = now() + make_interval(secs => j.result_ttl_s)
        from ended where j.id = ended.job_id
      returning j.kind, extract(epoch from now() - greatest(j.submitted_at, j.due_at))::float8 as duration_s)
    select kind, duration_s, 1 / (select count(*) from job_step where id = cast(:step_id as uuid)) as is_known
      from (values (true)) as one (row) left join finished on true
    """
)
_INSERT_ATTEMPTS = text(
    """
    insert into job_attempt (step_id, attempt, started_at, ended_at, outcome, error)
    select step_id, attempt, null, now(), 'failed', cast(error as json)
      from unnest(cast(:step_id as uuid[]), cast(:attempt as integer[]), cast(:error as text[]))
        as told(step_id, attempt, error)
    on conflict (step_id, attempt) do update
       set ended_at = excluded.ended_at, outcome = excluded.outcome, error = excluded.error
    """
)

# Everything that waits for a failed step, by edges on which a failure goes on.
_SKIP_STEPS = text(
    """
    with recursive doomed(id) as (
      select child from job_edge where parent = any(cast(:failed as uuid[])) and on_failure = 'fail'
      union
      select e.child from job_edge e join doomed on e.parent = doomed.id where e.on_failure = 'fail'),
    locked as (
      select s.id from job_step s join doomed using (id)
       where s.state in ('waiting', 'scheduled') order by s.id for no key update of s)
    update job_step s set state = 'skipped', finished_at = now()
      from locked where s.id = locked.id and s.state in ('waiting', 'scheduled')
    returning s.id, s.job_id, s.state, s.output is not null as is_output
    """
)

# A parent's end is one off what its children wait for. At zero a child is ready, or scheduled; `parent` is one of
# those that ended here. Each row is locked, so exactly one transaction sees zero.
_ADVANCE_CHILDREN = text(
    """
    with ended as (
      select child, count(*)::integer as count, (array_agg(parent))[1] as parent
        from job_edge
       where parent = any(cast(:succeeded as uuid[]))
          or (parent = any(cast(:failed as uuid[])) and on_failure <> 'fail')
       group by child),
    locked as (
      select s.id, ended.count, ended.parent from job_step s join ended on ended.child = s.id
       order by s.id for no key update of s)
    update job_step s
       set waiting_on = s.waiting_on - locked.count,
           state = case when s.state <> 'waiting' or s.waiting_on > locked.count then s.state
                        when s.delay_s > 0 then 'scheduled' else 'ready' end,
           due_at = case when s.state = 'waiting' and s.waiting_on = locked.count
                         then now() + make_interval(secs => s.delay_s) else s.due_at end
      from locked
     where s.id = locked.id
    returning s.id, s.job_id, s.state, s.attempt, s.handler, s.leased, locked.parent
    """
)

_ADVANCE_JOBS = text(
    f"""
    with told as (
      select given.*
        from {_given(id="uuid", ended="integer", failed="integer", lost="integer", error="text")}
        join job j using (id) order by j.id for no key update of j)
    update job j
       set open_steps = j.open_steps - told.ended,
           failed_steps = j.failed_steps + told.failed,
           lost_outputs = j.lost_outputs + told.lost,
           error = coalesce(j.error, cast(told.error as json)),
           state = case when j.open_steps > told.ended then 'running'
                        when j.lost_outputs + told.lost = 0 then 'succeeded'
                        when j.cancel_requested_at is not null then 'cancelled' else 'failed' end,
           finished_at = case when j.open_steps = told.ended then now() end,
           expires_at = case when j.open_steps = told.ended then now() + make_interval(secs => j.result_ttl_s) end
      from told
     where j.id = told.id
    returning j.kind, j.state, j.finished_at is not null as has_ended,
              extract(epoch from now() - greatest(j.submitted_at, j.due_at))::float8 as duration_s
    """  # noqa: S608  constants
)

_TAKE_DUE = text(
    """
    update job_step s set state = 'ready'
      from job j
     where j.id = s.job_id and s.id = any(array(
      select id from job_step where state = 'scheduled' and due_at <= now()
       order by due_at limit :count_max for no key update skip locked))
    returning s.id, s.job_id, s.state, s.attempt, s.handler, s.leased, j.traceparent, j.correlation
    """
)
_TAKE_LOST = text(
    """
    select s.id, s.attempt, s.first_attempt, s.handler, j.traceparent, j.correlation
      from job_step s join job j on j.id = s.job_id
     where s.state = 'ready' and not s.leased and s.due_at < now() - make_interval(secs => :older_than_s)
     order by s.id limit :count_max for no key update of s skip locked
    """
)
_NEXT_DUE = text(
    "select extract(epoch from min(due_at) - clock_timestamp())::float8 from job_step where state = 'scheduled'"
)


def columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Rows that all have the same names, turned; of no rows, nothing."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def ready(handler: str, step: UUID | None) -> str:
    """What workers are told: that this leased step is ready; of None, that several of the handler are."""
    return f"{handler} {step or ''}"


def read_ready(told: str) -> tuple[str, UUID | None]:
    """The other way round; the name is empty where there may be a step of any handler. A process of an earlier
    version says the name alone."""
    handler, says_step, step = told.rpartition(" ")
    return (handler, UUID(step) if step else None) if says_step else (told, None)


async def hold_key(connection: AsyncConnection, key: str, job_id: UUID, unique_s: float | None) -> UUID:
    """Take `key` for a job; return that job, or the one that holds the key. Waits for whoever is taking it."""
    parameters = {"key": key, "job_id": job_id, "unique_s": unique_s}
    taken: UUID | None = (await connection.execute(_TAKE_KEY, parameters)).scalar()
    if taken is None:
        holder: UUID = (await connection.execute(_HOLDER_OF_KEY, {"key": key})).scalar_one()
        return holder
    return taken


async def take_steps(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Row[Any]]:
    """Lock these steps until the transaction ends, and read what they are called with."""
    return {row.id: row for row in await _rows(connection, _TAKE_STEPS, {"ids": list(ids)})}


async def existing(connection: AsyncConnection, ids: Collection[UUID]) -> Sequence[UUID]:
    """Those of these steps that there are."""
    return [row.id for row in await _rows(connection, _EXISTING, {"ids": list(ids)})]


async def lock_steps(connection: AsyncConnection, ids: Collection[UUID]) -> None:
    """Lock these steps, in their order, until the transaction ends."""
    await connection.execute(_LOCK_STEPS, {"ids": list(ids)})


async def end_steps(connection: AsyncConnection, steps: Columns) -> Sequence[Row[Any]]:
    """End attempts; a row for each that was still the one that ran."""
    return await _rows(connection, _END_STEPS, steps)


async def end_solos(
    connection: AsyncConnection, steps: Columns
) -> tuple[Sequence[tuple[str, float]], Sequence[UUID]]:
    """End attempts that succeeded, and the jobs whose only steps they are; kind and seconds of each job.

    Besides, the steps, where not all have ended.
    """
    kinds, durations_s, ids = (await connection.execute(_END_SOLOS, steps)).one()
    return list(zip(kinds or (), durations_s or (), strict=True)), ids or ()


async def insert_attempts(connection: AsyncConnection, attempts: Columns) -> None:
    """Write down attempts that failed."""
    await connection.execute(_INSERT_ATTEMPTS, attempts)


async def skip_steps(connection: AsyncConnection, failed: Collection[UUID]) -> Sequence[Row[Any]]:
    """Skip all that waits for steps that failed; returns what was skipped here."""
    return await _rows(connection, _SKIP_STEPS, {"failed": list(failed)})


async def advance_children(
    connection: AsyncConnection, succeeded: Collection[UUID], failed: Collection[UUID]
) -> Sequence[Row[Any]]:
    """Tell the children of ended steps; returns every child that was told, as it is now."""
    return await _rows(connection, _ADVANCE_CHILDREN, {"succeeded": list(succeeded), "failed": list(failed)})


async def advance_jobs(connection: AsyncConnection, jobs: Columns) -> Sequence[Row[Any]]:
    """Count what ended off the jobs; returns those without open steps, which have ended."""
    return [row for row in await _rows(connection, _ADVANCE_JOBS, jobs) if row.has_ended]


async def take_due(connection: AsyncConnection, count_max: int) -> Sequence[Row[Any]]:
    """Make scheduled steps ready whose time has come; any number of processes may, each takes others."""
    return await _rows(connection, _TAKE_DUE, {"count_max": count_max})


async def take_lost(connection: AsyncConnection, older_than_s: float, count_max: int) -> Sequence[Row[Any]]:
    """Lock inline steps that have been ready for longer than their announcement can exist."""
    return await _rows(connection, _TAKE_LOST, {"older_than_s": older_than_s, "count_max": count_max})


async def next_due_s(connection: AsyncConnection) -> float | None:
    """Seconds until the next scheduled step is due, negative when it is overdue; None when none is scheduled."""
    seconds: float | None = (await connection.execute(_NEXT_DUE)).scalar()
    return seconds


async def _rows(
    connection: AsyncConnection, statement: TextClause, parameters: Mapping[str, Any]
) -> Sequence[Row[Any]]:
    return (await connection.execute(statement, parameters)).all()
