"""Leases: the statements by which workers take steps, keep them, and lose them. Nothing here commits.

A lease is valid while its worker's row lives. PostgreSQL's clock decides, and a worker whose time is over is gone
for good: whoever finds it so ends its attempts, and what it completes afterwards meets the fence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.jobs import store

CANCEL_CHANNEL = "tandem_job_cancel"
"""Notified with the id of a job that is to be cancelled."""

# The worker's own row is locked against being found dead meanwhile: else what is taken here would be nobody's.
ALIVE = """
    with me as (
      select id from job_worker where id = :worker and alive_until > clock_timestamp() for key share)"""
TAKE_FREE = f""",
    taken as (
      update job_step s set state = 'running', leased_by = :worker, started_at = now(), progress = null
        from free where s.id = free.id
      returning s.id, s.job_id, s.attempt, s.first_attempt, s.handler, s.queue, s.cursor, s.priority, s.fair_at,
                s.args, s.takes),
    attempts as (
      insert into job_attempt (step_id, attempt, worker, started_at)
      select id, attempt, cast(cast(:worker as uuid) as text), now() from taken
      on conflict (step_id, attempt) do update
         set worker = excluded.worker, started_at = excluded.started_at, ended_at = null, outcome = null),
    waiting as (
      select id from job where id = any(array(select job_id from taken)) and state in ('waiting', 'scheduled')
       order by id for no key update),
    begun as (
      update job j set state = 'running' from waiting
       where j.id = waiting.id and j.state in ('waiting', 'scheduled')),
    served as (
      insert into job_queue as q (queue, served)
      select cast(:queue as text), max(fair_at) from taken having max(fair_at) > 'epoch'
      on conflict (queue) do update set served = greatest(q.served, excluded.served))
    select s.*, j.traceparent, j.correlation, j.cancel_requested_at, j.due_at, j.step_count = 1 as is_solo,
           given.inputs, given.stored
      from taken s join job j on j.id = s.job_id
{store.INPUTS}"""  # noqa: S608  constants
"""How a statement that takes begins, and ends once `free` has the ids of the steps to take.

All that a lease writes is in it, so that it is one round trip and, by itself, one commit: that the attempts begin,
before they do (what ends its worker has used one up), that the jobs run, and whose turn was served. What they are
called with is read beside it: parents have ended before their child is ready.
"""


def _as_driver_takes_it(statement: str, *names: str) -> str:
    """With the parameters by their places among `names`."""
    for place, name in enumerate(names, 1):
        statement = re.sub(rf"(?<!:):{name}\b", f"${place}", statement)
    return statement


# That the worker lives is asked of a row that was found, so that a look at an empty queue locks nothing, and has
# nothing to write to disk. That there is a step of these handlers is asked first: a look in vain does not read
# what waits in the queue for another lane. It is asked in an index's order, since PostgreSQL would read the whole
# table where it expects to come upon one soon.
_TAKE = text(
    f"""{ALIVE},
    free as (
      select id from job_step
       where state = 'ready' and leased and queue = :queue and handler = any(cast(:handlers as text[]))
         and exists (
           select from unnest(cast(:handlers as text[])) as told(handler) cross join lateral (
             select from job_step mine
              where mine.state = 'ready' and mine.leased and mine.queue = :queue and mine.handler = told.handler
              order by mine.concurrency_key limit 1) found)
         and case when id is not null then exists (select from me) end
       order by priority desc, fair_at, id limit :free for no key update skip locked){TAKE_FREE}"""  # noqa: S608
)

TAKE_ONE = _as_driver_takes_it(
    f"""{ALIVE},
    free as (
      select id from job_step
       where id = :step and state = 'ready' and leased and queue = :queue
         and case when handler = any(cast(:handlers as text[])) then exists (select from me) end
         for no key update skip locked){TAKE_FREE}""",  # noqa: S608
    "worker", "step", "queue", "handlers",
)  # fmt: skip
"""Takes one step that is known to be ready, in a lane that had no other: there is nothing to choose from. For the
worker's own connection to the server."""
_END_ATTEMPTS = text(
    """
    update job_attempt a set ended_at = now(), outcome = told.outcome, peak_rss_mib = told.peak_rss_mib
      from unnest(cast(:step_id as uuid[]), cast(:attempt as integer[]), cast(:outcome as text[]),
                  cast(:peak_rss_mib as float8[])) as told(step_id, attempt, outcome, peak_rss_mib)
     where a.step_id = told.step_id and a.attempt = told.attempt
    """
)

# The attempt does not count: another worker begins it anew.
_GIVE_BACK = text(
    """
    with locked as (
      select id from job_step
       where leased_by = :worker and state = 'running' and not id = any(cast(:held as uuid[]))
       order by id for no key update)
    update job_step s set state = 'ready', leased_by = null from locked
     where s.id = locked.id and s.leased_by = :worker and s.state = 'running'
    returning s.id
    """
)
_NOTIFY_STEP = text(
    f"select pg_notify('{store.STEP_CHANNEL}', ready)"  # noqa: S608  a constant
    " from unnest(cast(:wake as text[])) as told(ready)"
)
_NOTIFY_CANCEL = text(f"select pg_notify('{CANCEL_CHANNEL}', cast(:job_id as text))")

_PROGRESS = text(
    """
    with told as (
      select given.*
        from unnest(cast(:id as uuid[]), cast(:attempt as integer[]), cast(:progress as text[]),
                    cast(:worker as uuid[])) as given(id, attempt, progress, worker)
        join job_step s using (id)
       where s.attempt = given.attempt and s.leased_by = given.worker and s.state = 'running'
       order by s.id for no key update of s)
    update job_step s set progress = cast(told.progress as json)
      from told where s.id = told.id
    """
)
_CHECKPOINT = text(
    """
    update job_step set cursor = cast(:cursor as json)
     where id = :id and attempt = :attempt and leased_by = :worker and state = 'running'
    returning id
    """
)

_UNREGISTER = text("delete from job_worker where id = :worker")
_DEAD = text("select id from job_worker where alive_until <= clock_timestamp() for update skip locked")
_STEPS_OF = text(
    """
    select s.id, s.attempt, s.first_attempt, s.handler, s.leased_by, j.traceparent, j.correlation,
           j.cancel_requested_at
      from job_step s join job j on j.id = s.job_id
     where s.state = 'running' and s.leased_by = any(cast(:workers as uuid[]))
     order by s.id limit :count_max for no key update of s
    """
)
_FORGET = text("delete from job_worker where id = any(cast(:workers as uuid[]))")

REGISTER = """
insert into job_worker (id, process, host, pid, slots, running, draining, started_at, beat_at, alive_until)
values ($1, $2, $3, $4, $5, 0, false, clock_timestamp(), clock_timestamp(),
        clock_timestamp() + make_interval(secs => $6))
"""
"""For the worker's own connection to the server, like the next two."""
BEAT = """
update job_worker
   set beat_at = clock_timestamp(), alive_until = clock_timestamp() + make_interval(secs => $2), running = $3,
       rss_mib = $4
 where id = $1
returning draining
"""
"""No row: it has been found dead."""
CANCELLED = """
select s.id from job_step s join job j on j.id = s.job_id
 where s.leased_by = $1 and s.state = 'running' and j.cancel_requested_at is not null
"""


class Taken(NamedTuple):
    """A step that was leased, as `TAKE_FREE` answers it."""

    id: UUID
    job_id: UUID
    attempt: int
    first_attempt: int
    handler: str
    queue: str
    cursor: Any
    priority: int
    fair_at: datetime | None
    args: Any
    takes: str
    traceparent: str | None
    correlation: str | None
    cancel_requested_at: datetime | None
    due_at: datetime
    is_solo: bool
    inputs: Any
    stored: Any


async def unregister(connection: AsyncConnection, worker: UUID) -> None:
    """End a worker's life. It holds no lease any more."""
    await connection.execute(_UNREGISTER, {"worker": worker})


async def take(
    connection: AsyncConnection, worker: UUID, queue: str, handlers: Collection[str], free: int
) -> Sequence[Taken]:
    """Lease up to `free` steps of a queue, the most urgent first, whose attempts begin with that; none when the
    worker counts as dead."""
    told = {"worker": worker, "queue": queue, "handlers": list(handlers), "free": free}
    return [Taken(*row) for row in (await connection.execute(_TAKE, told)).all()]


def place(row: Taken | Row[Any]) -> tuple[Any, ...]:
    """Sorts what was taken as it waited: what an update returns is in no order."""
    return -row.priority, row.fair_at is None, row.fair_at or 0, row.id


async def end_attempts(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write down how attempts ended: `step_id`, `attempt`, `outcome`, `peak_rss_mib`."""
    await connection.execute(_END_ATTEMPTS, store.columns(rows))


async def give_back(connection: AsyncConnection, worker: UUID, held: Collection[UUID]) -> Sequence[UUID]:
    """Make all of a worker's steps ready again but those that it `held`s; returns them."""
    told = {"worker": worker, "held": list(held)}
    given = [row.id for row in (await connection.execute(_GIVE_BACK, told)).all()]
    if given:
        await notify_step(connection)
    return given


async def notify_step(connection: AsyncConnection, wake: Collection[str] = ("",)) -> None:
    """Tell the workers `wake` when this transaction is committed: see `store.ready`. Of nothing, it wakes all."""
    await connection.execute(_NOTIFY_STEP, {"wake": sorted(wake)})


async def notify_cancel(connection: AsyncConnection, job_id: UUID) -> None:
    """Tell the workers, when this transaction is committed, that a job is to be cancelled."""
    await connection.execute(_NOTIFY_CANCEL, {"job_id": str(job_id)})


async def write_progress(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the progress of running steps: `id`, `attempt`, `progress` as JSON text, `worker`."""
    await connection.execute(_PROGRESS, store.columns(rows))


async def checkpoint(connection: AsyncConnection, step_id: UUID, attempt: int, worker: UUID, cursor: str) -> bool:
    """Keep a running step's cursor, JSON text; False when it is not this worker's any more."""
    told = {"id": step_id, "attempt": attempt, "worker": worker, "cursor": cursor}
    return (await connection.execute(_CHECKPOINT, told)).first() is not None


async def dead_workers(connection: AsyncConnection) -> Sequence[UUID]:
    """Workers whose time is over, locked until the transaction ends; those that others lock are theirs."""
    return [row.id for row in (await connection.execute(_DEAD)).all()]


async def steps_of(connection: AsyncConnection, workers: Collection[UUID], count_max: int) -> Sequence[Row[Any]]:
    """What these workers were running, locked."""
    told = {"workers": list(workers), "count_max": count_max}
    return (await connection.execute(_STEPS_OF, told)).all()


async def forget(connection: AsyncConnection, workers: Collection[UUID]) -> None:
    """Delete dead workers."""
    await connection.execute(_FORGET, {"workers": list(workers)})
