"""Watching a job: what has changed of it and of its first steps, from one look to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from shared.http.event_stream import ServerEvent
from shared.jobs import reading
from shared.jobs.board.views import JobView, StepState
from shared.publishing import UnitsOfWork

STEPS_WATCHED_MAX: Final = 200
_COMMIT_MAX: Final = timedelta(seconds=30)
"""What has ended is looked at once more for so long: its transaction may have been committed after a look."""

_NOW = text("select now()")
_STEPS = text(
    """
    select id, number, handler, queue, state, attempt, progress, started_at, finished_at, error from job_step
     where job_id = :job_id and number < :count_max
       and (finished_at is null or cast(:since as timestamptz) is null or finished_at > :since)
     order by number
    """
)


class JobWatch:
    """One reader's. The first look tells how everything stands, so that who connects again has missed nothing."""

    def __init__(self, units: UnitsOfWork, job_id: UUID) -> None:
        self.is_over = False
        self.end_id: str | None = None
        """The id of the last event, once the job has ended."""
        self._units = units
        self._job_id = job_id
        self._since: datetime | None = None
        self._known: dict[UUID | None, Mapping[str, Any]] = {}

    async def look(self) -> Sequence[ServerEvent]:
        """Events `step` of steps that have changed, and then `job`, if that has. Raises `JobNotFoundError`."""
        told = {"job_id": self._job_id, "count_max": STEPS_WATCHED_MAX, "since": self._since}
        async with self._units.begin() as uow:
            # The job first: when it has ended, then so have the steps that are read after it.
            job = await reading.find_job(uow.connection, self._job_id)
            steps = (await uow.connection.execute(_STEPS, told)).mappings().all()
            now: datetime = (await uow.connection.execute(_NOW)).scalar_one()
        events = [
            ServerEvent("step", StepState.model_validate(step).model_dump_json())
            for step in steps
            if self._has_changed(step["id"], {name: step[name] for name in ("state", "attempt", "progress")})
        ]
        shown = JobView.model_validate(job)
        if shown.finished_at is not None:
            self.is_over, self.end_id = True, f"end-{shown.finished_at.timestamp():.6f}"
        if self._has_changed(None, shown.model_dump()):
            events.append(ServerEvent("job", shown.model_dump_json(), self.end_id or "open"))
        self._since = now - _COMMIT_MAX
        return events

    def _has_changed(self, key: UUID | None, state: Mapping[str, Any]) -> bool:
        if self._known.get(key) == state:
            return False
        self._known[key] = state
        return True
