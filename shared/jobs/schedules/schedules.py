"""A service's schedules, composed: declared at its start, fired by any of its processes, ordered about by people.

SCHEDULES = Schedules(Schedule("health-check", Every(10), lambda due: health_check.s()))
SERVICE = Service(…, background_tasks=(JOBS.keep_due, SCHEDULES.keep_firing))
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row

from shared import failpoints
from shared.errors import TransientError
from shared.failpoints import FailPoints
from shared.jobs.schedules import store
from shared.jobs.schedules.catch_up import MADE_UP_MAX, due_between, firing_id, schedule_id
from shared.jobs.schedules.firing import FiringError, fire_one, submit
from shared.jobs.schedules.schedule import Schedule, ScheduleNotFoundError, TooManyFiringsError, rule_of
from shared.process import Parts
from shared.publishing import UnitOfWork, UnitsOfWork
from shared.telemetry import Ask, Gauges, Sample

_log = structlog.get_logger(__name__)

SHOWN_MAX = 1_000
_LOOK_MAX_S = 1.0
"""A change of a schedule, and a job whose end another firing waits for, are seen at the latest after so long."""
_LOOK_MIN_S = 0.01
_AWAY_S = 2.0
_FAULTY_S = 30.0
"""For how long a schedule rests whose own code raised; the others go on."""


class Schedules:
    """The schedules that a service's code declares; raises `ValueError` for two of one name."""

    def __init__(self, *schedules: Schedule) -> None:
        self._by_id = {schedule.id: schedule for schedule in schedules}
        if len(self._by_id) != len(schedules):
            raise ValueError("two schedules have the same name")
        self._rest_until: dict[UUID, float] = {}
        self._fail_points: FailPoints | None = None

    # -- running

    async def keep_firing(self, parts: Parts) -> None:
        """Declare the schedules, then fire whatever is due, when it is due, as long as the process runs."""
        self._fail_points = FailPoints.told(parts.settings.failpoints)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.run(parts.units))
            if self._by_id:
                measurements = parts.telemetry.metrics.measurements
                tasks.create_task(Gauges(parts.settings, measurements, self.lag_of(parts.units)).run())

    async def run(self, units: UnitsOfWork) -> None:
        """The same without the gauges. Returns where there are no schedules, once the table says so, too."""
        is_declared = False
        while self._by_id or not is_declared:
            try:
                if not is_declared:
                    await self.declare(units)
                    is_declared = True
                wait_s = await self.fire_due(units)
            except TransientError as error:
                _log.warning("schedules.waiting", error=str(error))
                wait_s = _AWAY_S
            await asyncio.sleep(wait_s)

    async def declare(self, units: UnitsOfWork) -> None:
        """Have the table say what the code says: a changed rule takes effect, a removed schedule is disabled."""
        async with units.begin() as uow:
            now = await store.now(uow.connection)
            rows = [schedule.row(now) for schedule in self._by_id.values()]
            await store.declare(uow.connection, rows)

    async def fire_due(self, units: UnitsOfWork) -> float:
        """Fire all that is due; return the seconds until it is worth looking again."""
        while True:
            now = time.monotonic()
            able = {key: one for key, one in self._by_id.items() if self._rest_until.get(key, 0.0) <= now}
            try:
                async with units.begin() as uow:
                    if not await fire_one(uow, able):
                        next_s = await store.next_due_s(uow.connection, able)
                        return _LOOK_MAX_S if next_s is None else min(max(next_s, _LOOK_MIN_S), _LOOK_MAX_S)
                    if self._fail_points is not None:
                        await uow.flush()
                        self._fail_points.reach(failpoints.SCHEDULER_BEFORE_COMMIT)
                if self._fail_points is not None:
                    self._fail_points.reach(failpoints.SCHEDULER_AFTER_COMMIT)
            except FiringError as error:
                _log.exception("schedule.failed", schedule=self._by_id[error.schedule].name)
                self._rest_until[error.schedule] = time.monotonic() + _FAULTY_S

    def lag_of(self, units: UnitsOfWork) -> dict[str, Ask]:
        """The gauges' question how late the schedules are."""

        async def ask() -> list[Sample]:
            async with units.begin() as uow:
                lags = await store.lags(uow.connection, self._by_id)
            return [Sample("tandem.schedule.lag", lag_s, {"schedule": name}) for name, lag_s in lags.items()]

        return {"schedules": ask}

    # -- ordering

    async def list_all(self, uow: UnitOfWork) -> Sequence[Row[Any]]:
        """The rows of all schedules, `SHOWN_MAX` at most, by name."""
        return await store.list_all(uow.connection, SHOWN_MAX)

    async def get(self, uow: UnitOfWork, name: str) -> Row[Any]:
        """The row of a schedule that code declares. Raises `ScheduleNotFoundError`."""
        row, _ = await self._locked(uow, name)
        return row

    async def pause(self, uow: UnitOfWork, name: str) -> None:
        """Fire nothing until it is resumed. Raises `ScheduleNotFoundError`."""
        schedule = self._declared(name)
        if not await store.pause(uow.connection, schedule.id):
            raise ScheduleNotFoundError(f"there is no schedule {name!r}")

    async def resume(self, uow: UnitOfWork, name: str) -> None:
        """Go on from now; what was due meanwhile was not missed, and is not made up for. Raises the same."""
        row, _ = await self._locked(uow, name)
        await store.resume(uow.connection, row.id, rule_of(row).next_after(row.now))

    async def run_now(self, uow: UnitOfWork, name: str) -> UUID:
        """Submit its job once more, with this moment as its due time; return the job. Raises the same."""
        row, schedule = await self._locked(uow, name)
        fired = await submit(uow, schedule, [row.now])
        assert fired is not None
        return fired[1]

    async def backfill(self, uow: UnitOfWork, name: str, first: datetime, last: datetime) -> Sequence[UUID]:
        """Fire every due time from `first` to `last` that has not fired; return all their jobs.

        They run side by side, unless the schedule has them wait for each other. Raises `ScheduleNotFoundError`,
        and `TooManyFiringsError` for more than `MADE_UP_MAX`.
        """
        row, schedule = await self._locked(uow, name)
        try:
            past = due_between(rule_of(row), first, min(last, row.now), MADE_UP_MAX)
        except ValueError as error:
            raise TooManyFiringsError(f"{error} in that range") from None
        jobs = {firing_id(row.id, due): due for due in past}
        if row.overlap == "queue":
            known = await store.known_jobs(uow.connection, list(jobs))
            new = {due for job_id, due in jobs.items() if job_id not in known}
            await store.plan(uow.connection, row.id, row.next_due, sorted({*row.held, *new}), None)
        else:
            await submit(uow, schedule, list(jobs.values()))
        return list(jobs)

    async def _locked(self, uow: UnitOfWork, name: str) -> tuple[Row[Any], Schedule]:
        schedule = self._declared(name)
        row = await store.lock(uow.connection, schedule.id)
        if row is None:
            raise ScheduleNotFoundError(f"there is no schedule {name!r}")
        return row, schedule

    def _declared(self, name: str) -> Schedule:
        schedule = self._by_id.get(schedule_id(name))
        if schedule is None:
            raise ScheduleNotFoundError(f"there is no schedule {name!r}")
        return schedule
