"""What is asked about jobs: their steps, their results, lists of them. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row, RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import BusinessError
from shared.jobs import results
from shared.jobs.control import JobNotFoundError
from shared.outside.objects import ObjectNotFoundError
from shared.process import Parts


class Outcome(StrEnum):
    """How a result stands."""

    DONE = "done"
    PENDING = "pending"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a job or a step, once `outcome` is done; its `error` when it has failed.

    `members` are the steps whose results are listed, where the result is a list; each with its own outcome.
    """

    id: UUID
    outcome: Outcome
    value: Any = None
    error: Any = None
    members: tuple[Result, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which jobs a list has: of a state, of a kind, with a leased step of a queue, of a moment or later; and those
    older than the job `before`. None: whichever."""

    state: str | None = None
    kind: str | None = None
    queue: str | None = None
    since: datetime | None = None
    before: UUID | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """As the statement has them. An id begins with its moment in milliseconds (RFC 9562, 5.7), by the clock of
        whoever submitted the job and somewhat before its transaction: it finds the place in the list."""
        first = None
        if self.since is not None:
            first = UUID(int=max(0, int((self.since.timestamp() - _ID_BEFORE_S) * 1_000)) << 80)
        return {
            "state": self.state,
            "kind": self.kind,
            "queue": self.queue,
            "first": first,
            "since": self.since,
            "before": self.before,
        }


class JobFailedError(BusinessError):
    """A job has failed, and so has no result."""


class JobCancelledError(BusinessError):
    """A job was cancelled, and so has no result."""


class ResultExpiredError(BusinessError):
    """A result is no longer kept."""


_ID_BEFORE_S = 600
_JOB = text("select * from job where id = :job_id")
_STEPS = text(
    """
    select s.*, array(select e.parent from job_edge e where e.child = s.id order by e.position) as parents
      from job_step s where s.job_id = :job_id and s.number > :after order by s.number limit :count_max
    """
)
_ATTEMPTS = text(
    "select * from job_attempt where step_id = any(cast(:step_ids as uuid[])) order by step_id, attempt"
)
_OUTPUTS = text(
    "select id, state, result, result_object, error from job_step"
    " where job_id = :job_id and output is not null order by output"
)
_STEP = text(
    """
    select s.id, s.state, s.result, s.result_object, s.error,
           coalesce(s.finished_at + make_interval(secs => j.result_ttl_s) < now(), false) as is_expired
      from job_step s join job j on j.id = s.job_id where s.id = :step_id
    """
)
_STATE = text(
    "select state, form, error, coalesce(expires_at < now(), false) as is_expired from job where id = :id"
)
_CONDITIONS = {
    "state": "j.state = :state",
    "kind": "j.kind = :kind",
    "queue": "exists (select from job_step s where s.job_id = j.id and s.leased and s.queue = :queue)",
    "first": "j.id >= :first",
    "since": "case when j.schedule_id is null then j.submitted_at else j.due_at end >= :since",
    "before": "j.id < :before",
}
_OUTCOMES = {
    "succeeded": Outcome.DONE,
    "failed": Outcome.FAILED,
    "skipped": Outcome.FAILED,
    "cancelled": Outcome.CANCELLED,
}


async def find_job(connection: AsyncConnection, job_id: UUID) -> RowMapping:
    """The job's row. Raises `JobNotFoundError`."""
    row = (await connection.execute(_JOB, {"job_id": job_id})).mappings().first()
    if row is None:
        raise JobNotFoundError(f"job {job_id} does not exist")
    return row


async def list_steps(
    connection: AsyncConnection, job_id: UUID, after: int, count_max: int
) -> Sequence[RowMapping]:
    """A job's steps by number, beginning after number `after`, each with the ids of its `parents`."""
    parameters = {"job_id": job_id, "after": after, "count_max": count_max}
    return (await connection.execute(_STEPS, parameters)).mappings().all()


async def list_attempts(connection: AsyncConnection, step_ids: Sequence[UUID]) -> dict[UUID, list[RowMapping]]:
    """The attempts that are written down of each of these steps, in order."""
    attempts: dict[UUID, list[RowMapping]] = {step_id: [] for step_id in step_ids}
    for row in (await connection.execute(_ATTEMPTS, {"step_ids": list(step_ids)})).mappings():
        attempts[row["step_id"]].append(row)
    return attempts


async def list_jobs(connection: AsyncConnection, wanted: Wanted, count_max: int) -> Sequence[RowMapping]:
    """Jobs, newest first, of those that are wanted."""
    # Only what was asked for stands in the statement, so that each has its index.
    asked = {name: value for name, value in wanted.parameters.items() if value is not None}
    conditions = " and ".join(["true", *(_CONDITIONS[name] for name in asked)])
    statement = text(f"select j.* from job j where {conditions} order by j.id desc limit :count_max")  # noqa: S608
    return (await connection.execute(statement, {**asked, "count_max": count_max})).mappings().all()


async def loaded(result: Result, parts: Parts) -> Result:
    """`result` with the values of what is in the object storage.

    Raises `ResultExpiredError` for what is not there any more, `ResultTooLargeError` for too much together, and
    `TransientError`.
    """
    wanted = results.stored_in([result.value, *(member.value for member in result.members or ())])
    if not wanted:
        return result
    try:
        found = await results.LargeResults(parts.settings, parts.circuit_breakers).load({*wanted})
    except ObjectNotFoundError as error:
        raise ResultExpiredError(f"the result of {result.id} is no longer kept: {error}") from None
    members = result.members and tuple(
        replace(member, value=results.filled(member.value, found)) for member in result.members
    )
    return replace(result, value=results.filled(result.value, found), members=members)


async def result_of(connection: AsyncConnection, task_id: UUID) -> Result:
    """The result of a job, or of one of its steps; of large ones, what `loaded` loads.

    Raises `JobNotFoundError` for the id of neither.
    """
    job = (await connection.execute(_STATE, {"id": task_id})).first()
    if job is None:
        row = (await connection.execute(_STEP, {"step_id": task_id})).first()
        if row is None:
            raise JobNotFoundError(f"neither a job nor a step is {task_id}")
        return _of_step(row, is_expired=row.is_expired)
    outcome = Outcome.EXPIRED if job.is_expired else _OUTCOMES.get(job.state, Outcome.PENDING)
    members: tuple[Result, ...] | None = None
    value = None
    if outcome is not Outcome.EXPIRED and (outcome is Outcome.DONE or job.form == "list"):
        rows = (await connection.execute(_OUTPUTS, {"job_id": task_id})).all()
        steps = tuple(_of_step(row, is_expired=False) for row in rows)
        value = [step.value for step in steps] if job.form == "list" else steps[0].value
        members = steps if job.form == "list" else None
    if outcome is not Outcome.DONE:
        value = None
    return Result(task_id, outcome, value, job.error if outcome is Outcome.FAILED else None, members)


def require_result(result: Result) -> None:
    """Raises `JobFailedError`, `JobCancelledError`, `ResultExpiredError` where there is none and will be none."""
    if result.outcome is Outcome.FAILED:
        error = result.error or {"type": "Skipped", "message": "a step before it has failed"}
        raise JobFailedError(f"{error['type']}: {error['message']}")
    if result.outcome is Outcome.CANCELLED:
        raise JobCancelledError(f"{result.id} was cancelled")
    if result.outcome is Outcome.EXPIRED:
        raise ResultExpiredError(f"the result of {result.id} is no longer kept")


def _of_step(row: Row[Any], *, is_expired: bool) -> Result:
    outcome = Outcome.EXPIRED if is_expired else _OUTCOMES.get(row.state, Outcome.PENDING)
    value = results.value_of(row.result, row.result_object) if outcome is Outcome.DONE else None
    return Result(row.id, outcome, value, row.error if outcome is Outcome.FAILED else None)
