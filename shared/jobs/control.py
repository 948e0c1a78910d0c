"""What people order a job to do: be cancelled, or go on from where it failed. Each in the caller's transaction."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import BusinessError
from shared.jobs.advance import Announced, cause_in_job
from shared.jobs.batch import JobBatch
from shared.jobs.leases import notify_cancel
from shared.publishing import Cause, UnitOfWork


class JobNotFoundError(BusinessError):
    """There is no such job, or no such step."""


class JobStateError(BusinessError):
    """The job's state does not allow what was asked for."""


_STATE = text("select state, traceparent, correlation from job where id = :job_id")

# Steps first, then the job, as everybody locks them. A running one is told, and ends by itself.
_CANCEL_STEPS = text(
    """
    with locked as (
      select id from job_step where job_id = :job_id and state in ('waiting', 'scheduled', 'ready')
       order by id for no key update)
    update job_step s set state = 'cancelled', finished_at = now()
      from locked where s.id = locked.id and s.state in ('waiting', 'scheduled', 'ready')
    returning s.output is not null as is_output
    """
)
_CANCEL_JOB = text(
    """
    update job
       set cancel_requested_at = coalesce(cancel_requested_at, now()),
           open_steps = open_steps - :ended,
           lost_outputs = lost_outputs + :lost,
           state = case when open_steps = :ended and lost_outputs + :lost > 0 then 'cancelled' else state end,
           finished_at = case when open_steps = :ended then now() end,
           expires_at = case when open_steps = :ended then now() + make_interval(secs => result_ttl_s) end
     where id = :job_id and finished_at is null
    returning state
    """
)

# What failed runs again with all its retries, what was skipped or cancelled waits again for what has no result.
_RETRY_STEPS = text(
    """
    with locked as (
      select id from job_step where job_id = :job_id and state in ('failed', 'skipped', 'cancelled')
       order by id for no key update),
    parents as (
      select e.child as id, count(*)::integer as count
        from job_edge e join locked on locked.id = e.child join job_step p on p.id = e.parent
       where p.state not in ('succeeded') group by e.child)
    update job_step s
       set waiting_on = coalesce(parents.count, 0),
           state = case when coalesce(parents.count, 0) > 0 then 'waiting' else 'ready' end,
           attempt = s.attempt + 1,
           first_attempt = s.attempt + 1,
           due_at = case when coalesce(parents.count, 0) > 0 then null else now() end,
           error = null,
           finished_at = null
      from locked left join parents using (id)
     where s.id = locked.id
    returning s.id, s.job_id, s.state, s.attempt, s.handler, s.leased
    """
)
_RETRY_JOB = text(
    """
    update job set state = 'running', open_steps = :opened, failed_steps = 0, lost_outputs = 0, error = null,
                   cancel_requested_at = null, finished_at = null, expires_at = null
     where id = :job_id and state in ('failed', 'cancelled')
    returning id
    """
)


async def cancel(uow: UnitOfWork, job_id: UUID) -> str:
    """End all steps that do not run; return the job's state, `running` while some still do.

    A job that has been cancelled stays it. Raises `JobNotFoundError`, `JobStateError` for one that has ended
    otherwise.
    """
    connection = uow.connection
    await uow.flush()
    await _state_of(connection, job_id)
    cancelled = (await connection.execute(_CANCEL_STEPS, {"job_id": job_id})).all()
    counts = {"job_id": job_id, "ended": len(cancelled), "lost": sum(row.is_output for row in cancelled)}
    changed: str | None = (await connection.execute(_CANCEL_JOB, counts)).scalar()
    if changed is not None:
        if changed == "running":
            await notify_cancel(connection, job_id)
        return changed
    state, _ = await _state_of(connection, job_id)
    if state != "cancelled":
        raise JobStateError(f"job {job_id} has {state}")
    return state


async def retry(uow: UnitOfWork, job_id: UUID, batch: JobBatch) -> None:
    """Run a job again from where it failed or was cancelled; what succeeded keeps its results.

    Raises `JobNotFoundError`, `JobStateError` for a job that has not failed.
    """
    connection = uow.connection
    await uow.flush()
    state, cause = await _state_of(connection, job_id)
    if state not in {"failed", "cancelled"}:
        raise JobStateError(f"job {job_id} is {state}, and only what failed or was cancelled is retried")
    steps = (await connection.execute(_RETRY_STEPS, {"job_id": job_id})).all()
    counts = {"job_id": job_id, "opened": len(steps)}
    if (await connection.execute(_RETRY_JOB, counts)).scalar() is None:
        raise JobStateError(f"job {job_id} is being retried already")
    for step in steps:
        if step.state == "ready":
            ready = Announced(step.job_id, step.id, step.attempt, step.handler, step.leased, cause)
            batch.announce(uow, ready)


async def _state_of(connection: AsyncConnection, job_id: UUID) -> tuple[str, Cause]:
    row = (await connection.execute(_STATE, {"job_id": job_id})).first()
    if row is None:
        raise JobNotFoundError(f"job {job_id} does not exist")
    return row.state, cause_in_job(row)
