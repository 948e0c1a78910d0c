"""Announcements that are gone: the broker lost its disk, a dead letter was parked. Even then a graph ends.

An inline step that has been ready for longer than the inbox remembers, which is longer than the broker keeps a
message, is announced by nothing any more. That was an attempt: the next one is announced anew, or the step fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from shared.errors import TransientError
from shared.jobs import store
from shared.jobs.advance import cause_in_job
from shared.jobs.batch import JobBatch
from shared.jobs.errors import AnnouncementLostError
from shared.jobs.inline import failed_attempt
from shared.jobs.retries import Retry
from shared.jobs.signatures import Job
from shared.process import Parts
from shared.publishing import UnitOfWork, UnitsOfWork

_log = structlog.get_logger(__name__)

_LOOK_INTERVAL_S = 600.0
_TAKEN_MAX = 500


async def find_lost(
    parts: Parts, batch_of: Callable[[UnitOfWork], JobBatch], handlers: Mapping[str, Job[..., Any]]
) -> None:
    """Look every ten minutes, for ever."""
    while True:
        found = 0
        try:
            found = await end_lost(parts.units, batch_of, handlers, parts.settings.inbox_retention_s)
        except TransientError as error:
            _log.warning("jobs.waiting", error=str(error))
        await asyncio.sleep(0 if found == _TAKEN_MAX else _LOOK_INTERVAL_S)


async def end_lost(
    units: UnitsOfWork,
    batch_of: Callable[[UnitOfWork], JobBatch],
    handlers: Mapping[str, Job[..., Any]],
    older_than_s: float,
) -> int:
    """End the attempts of a portion of what was announced so long ago; return how many."""
    async with units.begin() as uow:
        rows = await store.take_lost(uow.connection, older_than_s, _TAKEN_MAX)
        for row in rows:
            handler = handlers.get(row.handler)
            error = AnnouncementLostError(f"announced over {older_than_s:g} s ago, and never run")
            cause = cause_in_job(row)
            batch_of(uow).end(failed_attempt(row, Retry(0) if handler is None else handler.retries, error, cause))
    if rows:
        _log.warning("jobs.announcements_lost", count=len(rows))
    return len(rows)
