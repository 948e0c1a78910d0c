"""Completions: what ended in a worker is written down, as many attempts in one transaction as have ended by then.

It ends the attempts, carries out what they told, and advances their graphs; the fence in it lets nothing through
of a worker that has lost its lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

import structlog

from shared import failpoints
from shared.errors import TransientError
from shared.failpoints import FailPoints
from shared.jobs import leases
from shared.jobs.advance import FenceLostError
from shared.jobs.attempt import Finished, LeaseKey, failed
from shared.jobs.batch import JobBatch
from shared.jobs.effects import carry_out
from shared.publishing import UnitOfWork, UnitsOfWork

_log = structlog.get_logger(__name__)

_BATCH_MAX: Final = 200
_WAITING_MAX: Final = 1_000
_AGAIN_S: Final = 1.0

BatchOf = Callable[[UnitOfWork], JobBatch]


class Completions:
    """One worker's. A lease is `held` until its attempt's end is written, or never will be."""

    def __init__(
        self,
        units: UnitsOfWork,
        batch_of: BatchOf,
        is_worker: Callable[[UUID], bool],
        fail_points: FailPoints | None = None,
    ) -> None:
        self._units = units
        self._batch_of = batch_of
        self._is_worker = is_worker
        self._fail_points = fail_points
        self._waiting: asyncio.Queue[Finished] = asyncio.Queue(_WAITING_MAX)
        self.held: set[LeaseKey] = set()

    async def put(self, finished: Finished) -> None:
        """Have it written; waits while too many are."""
        await self._waiting.put(finished)

    async def run(self) -> None:
        """Write, for ever."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < _BATCH_MAX and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            await self._write(batch)
            for one in batch:
                self.held.discard(one.lease.key)
                self._waiting.task_done()

    async def written(self, timeout_s: float) -> None:
        """Wait until all are that were put; at most so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._waiting.join()
        except TimeoutError:
            _log.error("worker.not_written", count=self._waiting.qsize())

    async def _write(self, batch: Sequence[Finished]) -> None:
        try:
            await self._commit(batch)
        except Exception as error:  # noqa: BLE001  each alone says whose it is
            if len(batch) == 1:
                await self._write_alone(batch[0], error)
            else:
                for one in batch:
                    await self._write([one])

    async def _write_alone(self, finished: Finished, error: Exception) -> None:
        """Again and again while PostgreSQL is away and the lease is valid. What effects raise is a failure."""
        while self._is_worker(finished.lease.worker):
            if isinstance(error, FenceLostError):
                break
            if not isinstance(error, TransientError):
                _log.warning("worker.effects_failed", step=str(finished.lease.step_id), error=type(error).__name__)
                finished = failed(finished.lease, error)
            else:
                await asyncio.sleep(_AGAIN_S)
            try:
                await self._commit([finished])
            except Exception as another:  # noqa: BLE001
                error = another
            else:
                return
        _log.warning("worker.completion_refused", step=str(finished.lease.step_id), outcome=finished.outcome)

    async def _commit(self, batch: Sequence[Finished]) -> None:
        async with self._units.begin() as uow:
            collected = self._batch_of(uow)
            for one in batch:
                collected.end(one.ended)
                carry_out(one.effects, uow, one.lease.cause)
            await uow.flush()
            await leases.end_attempts(
                uow.connection,
                [
                    {
                        "step_id": one.lease.step_id,
                        "attempt": one.lease.attempt,
                        "outcome": one.outcome,
                        "peak_rss_mib": one.peak_rss_mib,
                    }
                    for one in batch
                ],
            )
            if any(one.lease.handler.concurrency is not None for one in batch):
                await leases.notify_step(uow.connection)  # there is room for others with their keys
            if self._fail_points is not None:
                await uow.flush()
                self._fail_points.reach(failpoints.WORKER_BEFORE_COMMIT)
        if self._fail_points is not None:
            self._fail_points.reach(failpoints.WORKER_AFTER_COMMIT)
