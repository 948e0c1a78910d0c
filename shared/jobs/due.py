"""Steps that wait for a time: delays and retries are rows, and this makes them ready. Any number of processes may.

Each takes rows that no other has locked, so that none is announced twice and nobody leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from shared.errors import TransientError
from shared.jobs import store
from shared.jobs.advance import Announced, cause_in_job
from shared.jobs.batch import JobBatch
from shared.publishing import UnitOfWork, UnitsOfWork

_log = structlog.get_logger(__name__)

_TAKEN_MAX = 500
_LOOK_MAX_S = 1.0
"""A step that was scheduled meanwhile is seen at the latest after so long."""
_LOOK_MIN_S = 0.02
_AWAY_S = 2.0


async def make_due(units: UnitsOfWork, batch_of: Callable[[UnitOfWork], JobBatch]) -> None:
    """Announce what is due, portion by portion, for ever."""
    while True:
        try:
            wait_s = await announce_due(units, batch_of)
        except TransientError as error:
            _log.warning("jobs.waiting", error=str(error))
            wait_s = _AWAY_S
        await asyncio.sleep(wait_s)


async def announce_due(units: UnitsOfWork, batch_of: Callable[[UnitOfWork], JobBatch]) -> float:
    """Announce a portion of what is due; return the seconds until it is worth looking again."""
    async with units.begin() as uow:
        rows = await store.take_due(uow.connection, _TAKEN_MAX)
        batch = batch_of(uow)
        for row in rows:
            step = Announced(row.job_id, row.id, row.attempt, row.handler, row.leased, cause_in_job(row))
            batch.announce(uow, step)
        if len(rows) == _TAKEN_MAX:
            return 0.0
        next_s = await store.next_due_s(uow.connection)
    return _LOOK_MAX_S if next_s is None else min(max(next_s, _LOOK_MIN_S), _LOOK_MAX_S)
