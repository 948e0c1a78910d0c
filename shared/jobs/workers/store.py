"""What is asked and ordered of workers. Nothing here commits."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import BusinessError
from shared.jobs.leases import notify_cancel

WORKERS_SHOWN_MAX = 500
STEPS_SHOWN_MAX = 100
"""Of each worker."""


class WorkerNotFoundError(BusinessError):
    """There is no such worker, or no longer."""


# PostgreSQL's clock decides who lives, here as for the leases.
_WORKERS = text(
    """
    select w.*, clock_timestamp() as now,
           coalesce((select json_agg(step) from (
             select s.id, s.job_id, s.handler, s.queue, s.attempt, s.started_at, s.progress from job_step s
              where s.state = 'running' and s.leased_by = w.id order by s.started_at, s.id limit :steps_max) step),
             '[]') as steps
      from job_worker w
     where cast(:worker as uuid) is null or w.id = :worker
     order by w.id limit :workers_max
    """
)
_DRAIN = text("update job_worker set draining = true where id = :worker returning id")


async def list_workers(connection: AsyncConnection) -> Sequence[RowMapping]:
    """Workers, the longest known first, each with the `steps` that it runs, and the time `now`."""
    return (await connection.execute(_WORKERS, _asked(None))).mappings().all()


async def find_worker(connection: AsyncConnection, worker: UUID) -> RowMapping:
    """The same of one. Raises `WorkerNotFoundError`."""
    row = (await connection.execute(_WORKERS, _asked(worker))).mappings().first()
    if row is None:
        raise _unknown(worker)
    return row


async def drain(connection: AsyncConnection, worker: UUID) -> None:
    """Have a worker take no more steps; it hears that at once. Raises `WorkerNotFoundError`."""
    if (await connection.execute(_DRAIN, {"worker": worker})).first() is None:
        raise _unknown(worker)
    await notify_cancel(connection, worker)


def _asked(worker: UUID | None) -> dict[str, UUID | int | None]:
    return {"worker": worker, "steps_max": STEPS_SHOWN_MAX, "workers_max": WORKERS_SHOWN_MAX}


def _unknown(worker: UUID) -> WorkerNotFoundError:
    return WorkerNotFoundError(f"worker {worker} does not exist")
