"""What a worker reads and writes while steps run: leases, progress, checkpoints, and which workers are gone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Row

from shared.children import Progress
from shared.jobs import attempt, leases
from shared.jobs.advance import FenceLostError, cause_in_job
from shared.jobs.attempt import Lane, Lease, LeaseKey
from shared.jobs.completions import BatchOf
from shared.jobs.effects import Effect, carry_out
from shared.jobs.inline import inputs
from shared.jobs.leases import Taken
from shared.jobs.retries import Retry
from shared.jobs.signatures import Job
from shared.jobs.taking import Taking
from shared.publishing import UnitsOfWork

_log = structlog.get_logger(__name__)

_RECLAIMED_MAX: Final = 200


class Keeping:
    """One worker's. All but `on_progress` raise `TransientError`; then it is tried again later."""

    def __init__(self, units: UnitsOfWork, handlers: Mapping[str, Job[..., Any]], batch_of: BatchOf) -> None:
        self._units = units
        self._handlers = handlers
        self._batch_of = batch_of
        self._progress: dict[LeaseKey, tuple[Lease, Progress]] = {}

    async def lease(
        self, session: Taking, worker: UUID, lane: Lane, free: int, only: UUID | None = None
    ) -> tuple[list[tuple[Lease, bool]], float | None]:
        """Lease up to `free` steps of a lane, or `only` that one; with each, whether its job is to be cancelled.

        By one statement; of a lane with limits, in a transaction of another session. Besides, the seconds until
        the lane's rate allows one more, where that is why there is none.
        """
        wait_s: float | None = None
        rows: Sequence[Taken | Row[Any]]
        if lane.limits:
            async with self._units.begin() as uow:
                free, wait_s = await lane.limits.enter(uow.connection, free)
                rows = await lane.limits.take(uow.connection, worker, lane.handlers, free) if free else []
        elif only is not None:
            rows = await session.take_one(worker, lane.queue, lane.handlers, only)
        else:
            rows = await session.take(worker, lane.queue, lane.handlers, free)
        in_turn = sorted(rows, key=leases.place)
        return [(self._lease(worker, row), row.cancel_requested_at is not None) for row in in_turn], wait_s

    def _lease(self, worker: UUID, row: Taken | Row[Any]) -> Lease:
        return Lease(
            worker=worker,
            step_id=row.id,
            job_id=row.job_id,
            queue=row.queue,
            attempt=row.attempt,
            tries=row.attempt - row.first_attempt + 1,
            due_at=row.due_at,
            handler=self._handlers[row.handler],
            args=row.args,
            inputs=inputs(row),
            cursor=row.cursor,
            cause=cause_in_job(row),
            is_solo=row.is_solo,
        )

    def on_progress(self, lease: Lease, progress: Progress) -> None:
        """Keep how far a step is, until it is written."""
        self._progress[lease.key] = (lease, progress)

    def forget_progress(self, lease: Lease) -> None:
        """The attempt has ended."""
        self._progress.pop(lease.key, None)

    async def write_progress(self) -> None:
        """Write what has changed, in one statement."""
        told, self._progress = self._progress, {}
        rows = [
            {
                "id": lease.step_id,
                "attempt": lease.attempt,
                "worker": lease.worker,
                "progress": orjson.dumps(progress).decode(),
            }
            for lease, progress in told.values()
        ]
        if rows:
            async with self._units.begin() as uow:
                await leases.write_progress(uow.connection, rows)

    async def checkpoint(self, lease: Lease, cursor: Any, effects: Sequence[Effect]) -> None:
        """Commit a cursor and effects. Raises `FenceLostError` when the step is not this worker's any more."""
        text = orjson.dumps(cursor).decode()
        async with self._units.begin() as uow:
            if not await leases.checkpoint(uow.connection, lease.step_id, lease.attempt, lease.worker, text):
                raise FenceLostError(f"step {lease.step_id} is not this worker's any more")
            carry_out(effects, uow, lease.cause)

    async def reclaim(self) -> None:
        """End what dead workers were running, so that others run it."""
        async with self._units.begin() as uow:
            dead = await leases.dead_workers(uow.connection)
            if not dead:
                return
            rows = await leases.steps_of(uow.connection, dead, _RECLAIMED_MAX)
            collected = self._batch_of(uow)
            for row in rows:
                handler = self._handlers.get(row.handler)
                collected.end(attempt.lost(row, Retry() if handler is None else handler.retries))
            await uow.flush()
            if rows:
                ends = [
                    {"step_id": row.id, "attempt": row.attempt, "outcome": "lost", "peak_rss_mib": None}
                    for row in rows
                ]
                await leases.end_attempts(uow.connection, ends)
            if len(rows) < _RECLAIMED_MAX:
                await leases.forget(uow.connection, dead)
        _log.warning("worker.reclaimed", workers=len(dead), steps=len(rows))

    async def reconcile(self, worker: UUID, held: Collection[LeaseKey]) -> None:
        """Give back what PostgreSQL says is ours and we know nothing of: a commit whose answer was lost."""
        async with self._units.begin() as uow:
            given = await leases.give_back(
                uow.connection, worker, [step_id for by, step_id, _ in held if by == worker]
            )
        if given:
            _log.warning("worker.gave_back", steps=len(given))
