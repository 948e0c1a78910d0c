"""What people ask of reports: one to be made, how far it is, its PDF, and that it be stopped or tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping

from services.report import domain, store
from services.report.domain import Standing, StepStanding
from services.report.handlers.steps import JOBS, file_name, sales_report
from services.report.store import Report
from shared.errors import BusinessError
from shared.jobs import control, reading
from shared.publishing import Submitted, UnitOfWork

KIND: Final = "sales-report"
OPEN_MAX: Final = 100


class TooManyReportsError(BusinessError):
    """So many reports have not ended that no more are taken."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A report as it stands; `report` once its orders are fetched, `error` once it has failed."""

    job_id: UUID
    standing: Standing
    error: Any
    report: Report | None


async def ask_for(uow: UnitOfWork, start: date, end: date, user_id: UUID) -> Submitted:
    """Have the report of a period made and mailed to a user. Raises `TooManyReportsError`."""
    if await store.count_open(uow.connection) >= OPEN_MAX:
        raise TooManyReportsError(f"{OPEN_MAX} reports have not ended yet; try again later")
    return await uow.submit(sales_report(start, end, user_id), kind=KIND)


async def progress_of(uow: UnitOfWork, job_id: UUID) -> Progress:
    """How far a report is. Raises `JobNotFoundError`."""
    job = await reading.find_job(uow.reads, job_id)
    steps = await reading.list_steps(uow.reads, job_id, -1, len(domain.MESSAGES))
    standing = domain.standing_of(
        job["state"], [StepStanding(step["handler"], step["state"], _done(step)) for step in steps]
    )
    return Progress(job_id, standing, job["error"], await store.find_report(uow.reads, job_id))


async def read_pdf(uow: UnitOfWork, job_id: UUID) -> tuple[str, bytes] | None:
    """The name and the bytes of a report's PDF, if there is one."""
    found = await store.find_report(uow.reads, job_id)
    content = None if found is None else await store.read_pdf(uow.reads, job_id)
    return None if found is None or content is None else (file_name(found.start_date, found.end_date), content)


async def cancel(uow: UnitOfWork, job_id: UUID) -> None:
    """Stop a report. Raises `JobNotFoundError`, `JobStateError`."""
    await control.cancel(uow, job_id)


async def retry(uow: UnitOfWork, job_id: UUID) -> None:
    """Have a failed or cancelled report go on where it stopped. Raises `JobNotFoundError`, `JobStateError`."""
    await control.retry(uow, job_id, JOBS.batch(uow))


def _done(step: RowMapping) -> float:
    told = step["progress"]
    return told["current"] / told["total"] if told and told["current"] and told["total"] else 0.0
