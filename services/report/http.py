"""The HTTP of the report service: asking for a report, how far it is, and its PDF."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Annotated, Any, Self
from urllib.parse import quote
from uuid import UUID

from fastapi import FastAPI
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from services.report import domain
from services.report.domain import Status
from services.report.handlers import reports, schedules
from services.report.handlers.reports import Progress, TooManyReportsError
from shared.http.application import IdempotencyKey, service_app
from shared.http.idempotency import KEY_REUSED, Answer, answer_once
from shared.http.openapi import problem_responses
from shared.http.problems import InvalidRequestError, ProblemKind
from shared.jobs import JobCancelledError, JobFailedError, JobStateError, ResultExpiredError
from shared.jobs.board import routes as board
from shared.jobs.board.views import JOB_ID, ErrorView
from shared.jobs.schedules import routes as schedule_routes
from shared.jobs.workers import routes as workers
from shared.process import Parts
from shared.publishing import UnitOfWork

PATH = "/v1/reports/sales"
PDF_TYPE = "application/pdf"
_RETRY_AFTER_S = 1

ILLEGAL = ProblemKind(
    409, "illegal-state-change", "The report's state does not allow this", example=f"job {JOB_ID} has succeeded"
)
TOO_MANY = ProblemKind(
    429,
    "too-many-reports",
    "Too many reports have not ended",
    retry_after_s=30,
    example="100 reports have not ended yet; try again later",
)
CANCELLED = ProblemKind(409, "job-cancelled", "The report was cancelled", example=f"{JOB_ID} was cancelled")
GONE = ProblemKind(410, "pdf-deleted", "The PDF is no longer kept", example=f"the PDF of {JOB_ID} is deleted")
FAILED = ProblemKind(500, "job-failed", "The report has failed", example="ValueError: a reason")
PROBLEMS: dict[type[Exception], ProblemKind] = {
    JobStateError: ILLEGAL,
    JobFailedError: FAILED,
    JobCancelledError: CANCELLED,
    ResultExpiredError: GONE,
    TooManyReportsError: TOO_MANY,
    **board.PROBLEMS,
    **schedule_routes.PROBLEMS,
    **workers.PROBLEMS,
}


def _is_written_out(value: object) -> object:
    """Refuse a number, which Pydantic would take for seconds since 1970, and a time of day."""
    if isinstance(value, str) and len(value) == len("2026-11-28"):
        return value
    raise ValueError("a date such as 2026-11-28")


Day = Annotated[date, BeforeValidator(_is_written_out), Field(examples=["2026-11-01"])]


class SalesReport(BaseModel):
    """The period of a report, both days included, as days in Asia/Seoul; and the user to whom it is mailed."""

    model_config = ConfigDict(extra="forbid")

    start_date: Day
    end_date: Day = Field(
        description=f"At most {domain.DAYS_MAX} days from start_date on.", examples=["2026-11-28"]
    )
    user_id: UUID


class Accepted(BaseModel):
    """A report that will be made."""

    task_id: UUID = Field(examples=[JOB_ID])
    status: Status = "pending"


class ResultView(BaseModel):
    """A report that is made; `pdf_url` is null once the PDF is deleted, `mailed_at` where it was not mailed."""

    start_date: date
    end_date: date
    pages: int
    bytes: int | None
    sha256: str
    pdf_url: str | None = Field(examples=[f"{PATH}/{JOB_ID}/pdf"])
    made_at: datetime
    mailed_at: datetime | None


class ProgressView(BaseModel):
    """How far a report is: the step `current` of `total`, and `progress` in percent."""

    task_id: UUID = Field(examples=[JOB_ID])
    status: Status
    current: int = Field(examples=[3])
    total: int = Field(examples=[5])
    progress: int = Field(ge=0, le=100, examples=[40])
    message: str = Field(examples=["Creating charts"])
    error: ErrorView | None = Field(description="Why it has failed.")
    result: ResultView | None = Field(description="From when the PDF is made, before it is mailed.")

    @classmethod
    def of(cls, found: Progress) -> Self:
        report, at = found.report, found.standing
        result = None
        if report is not None and report.made_at is not None:
            url = None if report.bytes is None else f"{PATH}/{found.job_id}/pdf"
            told = {name: getattr(report, name) for name in ResultView.model_fields if name != "pdf_url"}
            result = ResultView.model_validate({**told, "pdf_url": url})
        return cls(
            task_id=found.job_id,
            status=at.status,
            current=at.current,
            total=at.total,
            progress=at.progress,
            message=at.message,
            error=found.error,
            result=result,
        )


def create_app(parts: Parts) -> FastAPI:
    """The report service's HTTP application, for a process with the role `api`."""
    app = service_app(
        title="Tandem report service",
        description="Makes reports of sales, as PDF and by mail.",
        telemetry=parts.telemetry,
        errors=PROBLEMS,
    )
    add_reports(app, parts)
    add_commands(app, parts)
    board.add_board(app, parts)
    schedule_routes.add_schedules(app, parts, schedules(parts.settings))
    workers.add_workers(app, parts)
    return app


def add_reports(app: FastAPI, parts: Parts) -> None:
    @app.post(PATH, status_code=202, response_model=Accepted, responses=problem_responses(KEY_REUSED, TOO_MANY))
    async def ask_for_sales_report(args: SalesReport, request: Request, key: IdempotencyKey = None) -> Response:
        """Have the sales report of a period made, and mailed to a user."""
        require_period(args)

        async def work(uow: UnitOfWork) -> Answer:
            asked = await reports.ask_for(uow, args.start_date, args.end_date, args.user_id)
            body = Accepted(task_id=asked.job_id).model_dump_json().encode()
            return Answer(202, body, f"{PATH}/{asked.job_id}")

        return await answer_once(parts.units, request, key, work)

    @app.get(f"{PATH}/{{task_id:uuid}}", responses=problem_responses(board.NOT_FOUND))
    async def get_sales_report(task_id: UUID) -> ProgressView:
        """How far a report is."""
        return ProgressView.of(await progress_of(parts, task_id))

    @app.get(
        f"{PATH}/{{task_id:uuid}}/pdf",
        response_class=Response,
        responses={
            200: {"content": {PDF_TYPE: {"schema": {"type": "string", "format": "binary"}}}},
            202: {"model": ProgressView, "description": "Not yet"},
            **problem_responses(board.NOT_FOUND, CANCELLED, GONE, FAILED),
        },
    )
    async def get_sales_report_pdf(task_id: UUID) -> Response:
        """The PDF, as soon as it is made, whether or not it could be mailed."""
        async with parts.units.begin() as uow:
            found = await reports.progress_of(uow, task_id)
            pdf = await reports.read_pdf(uow, task_id)
        return not_there(found) if pdf is None else pdf_response(*pdf)


def require_period(args: SalesReport) -> None:
    """Raises `InvalidRequestError` for dates of which there can be no report."""
    problem = domain.problem_of(args.start_date, args.end_date, datetime.now(UTC).astimezone(domain.ZONE).date())
    if problem is not None:
        raise InvalidRequestError(["body", problem[0]], problem[1])


async def progress_of(parts: Parts, task_id: UUID) -> Progress:
    """How far a report is. Raises `JobNotFoundError`."""
    async with parts.units.begin() as uow:
        return await reports.progress_of(uow, task_id)


def pdf_response(name: str, content: bytes) -> Response:
    """The PDF as a file to keep."""
    headers = {"content-disposition": f"attachment; filename={quote(name)}", "cache-control": "private, immutable"}
    return Response(content, media_type=PDF_TYPE, headers=headers)


def not_there(found: Progress) -> Response:
    """202 while there is no PDF yet.

    Raises `JobFailedError`, `JobCancelledError`, `ResultExpiredError` where there will be none.
    """
    status = found.standing.status
    if found.report is not None and found.report.made_at is not None:
        raise ResultExpiredError(f"the PDF of {found.job_id} is deleted")
    if status == "failed":
        raise JobFailedError(f"{found.error['type']}: {found.error['message']}")
    if status == "cancelled":
        raise JobCancelledError(f"{found.job_id} was cancelled")
    view = ProgressView.of(found)
    return Response(view.model_dump_json(), 202, {"retry-after": str(_RETRY_AFTER_S)}, "application/json")


def add_commands(app: FastAPI, parts: Parts) -> None:
    answers: dict[str, Any] = {
        "response_model": ProgressView,
        "responses": problem_responses(board.NOT_FOUND, ILLEGAL, KEY_REUSED),
    }

    async def changed(
        request: Request, key: str | None, task_id: UUID, change: Callable[[UnitOfWork, UUID], Awaitable[None]]
    ) -> Response:
        async def work(uow: UnitOfWork) -> Answer:
            await change(uow, task_id)
            await uow.flush()
            view = ProgressView.of(await reports.progress_of(uow, task_id))
            return Answer(200, view.model_dump_json().encode())

        return await answer_once(parts.units, request, key, work)

    @app.post(f"{PATH}/{{task_id:uuid}}/cancel", **answers)
    async def cancel_sales_report(task_id: UUID, request: Request, key: IdempotencyKey = None) -> Response:
        """Stop a report; a step that runs is told so and ends by itself."""
        return await changed(request, key, task_id, reports.cancel)

    @app.post(f"{PATH}/{{task_id:uuid}}/retry", **answers)
    async def retry_sales_report(task_id: UUID, request: Request, key: IdempotencyKey = None) -> Response:
        """Have a report that has failed or was cancelled go on with the step that it ended at."""
        return await changed(request, key, task_id, reports.retry)
