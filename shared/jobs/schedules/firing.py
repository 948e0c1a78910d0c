"""Firing: what is due becomes jobs, one schedule in one transaction. The row's lock is the leader.

A firing is one job, whoever fires it and however often: its id is made of the schedule and the due time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row

from shared.errors import TransientError
from shared.jobs.schedules import store
from shared.jobs.schedules.catch_up import MADE_UP_MAX, firing_id, firings, waits_for
from shared.jobs.schedules.schedule import Schedule, grace_of, rule_of
from shared.publishing import Firing, UnitOfWork

_log = structlog.get_logger(__name__)


class FiringError(Exception):
    """A schedule could not fire, by a fault in its own code; `__cause__` is what that raised."""

    def __init__(self, schedule: UUID) -> None:
        super().__init__(f"schedule {schedule} cannot fire")
        self.schedule = schedule


async def fire_one(uow: UnitOfWork, schedules: Mapping[UUID, Schedule]) -> bool:
    """Fire what one of these schedules has to fire; False when none has anything. Raises `FiringError`."""
    row = await store.take_due(uow.connection, schedules)
    if row is None:
        return False
    rule = rule_of(row)
    planned = firings(
        rule,
        waits_for(rule, row.next_due, row.planned_at, row.now),
        row.now,
        grace=grace_of(row),
        made_up=row.made_up,
    )
    if planned.given_up:
        _log.warning("schedule.missed", schedule=row.name, since=row.next_due.isoformat())
    is_open = row.overlap != "allow" and await store.is_open(uow.connection, row.id)
    due, held = _admitted(row, planned.due, is_open=is_open)
    last = await submit(uow, schedules[row.id], due)
    await store.plan(uow.connection, row.id, planned.next_due, held, last)
    return True


def _admitted(
    row: Row[Any], due: Sequence[datetime], *, is_open: bool
) -> tuple[Sequence[datetime], Sequence[datetime]]:
    """What is submitted now, and what is held back until the job that is open has ended."""
    held = sorted({*row.held, *due})
    if row.overlap == "allow":
        return held, ()
    if row.overlap == "skip":
        admitted = () if is_open else due[-1:]
        if len(due) > len(admitted):
            _log.warning("schedule.skipped", schedule=row.name, count=len(due) - len(admitted))
        return admitted, ()
    if is_open:
        if len(held) > MADE_UP_MAX:
            _log.warning("schedule.missed", schedule=row.name, since=held[0].isoformat())
        return (), held[-MADE_UP_MAX:]
    return held[:1], held[1:]


async def submit(uow: UnitOfWork, schedule: Schedule, due: Sequence[datetime]) -> tuple[datetime, UUID] | None:
    """Submit the jobs of these firings that are not there yet; return the last due time with its job.

    The caller holds the schedule's row, so that nobody submits them meanwhile. Raises `FiringError`.
    """
    jobs = {firing_id(schedule.id, moment): moment for moment in due}
    known = await store.known_jobs(uow.connection, list(jobs)) if jobs else set()
    for job_id, moment in jobs.items():
        if job_id not in known:
            try:
                graph = schedule.graph(moment)
                await uow.submit(graph, kind=schedule.name, firing=Firing(job_id, schedule.id, moment))
            except TransientError:
                raise
            except Exception as error:
                raise FiringError(schedule.id) from error
    return max(((moment, job_id) for job_id, moment in jobs.items()), default=None)
