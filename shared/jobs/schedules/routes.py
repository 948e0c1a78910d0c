"""HTTP of schedules, for any service that has some: its http.py calls `add_schedules`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, Protocol, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Row
from starlette.requests import Request
from starlette.responses import Response

from shared.http.application import IdempotencyKey
from shared.http.idempotency import KEY_REUSED, Answer, answer_once
from shared.http.openapi import problem_responses
from shared.http.problems import ProblemKind
from shared.http.timestamps import Timestamp
from shared.jobs.schedules.catch_up import MADE_UP_MAX
from shared.jobs.schedules.schedule import Overlap, ScheduleNotFoundError, TooManyFiringsError
from shared.jobs.schedules.schedules import Schedules
from shared.process import Parts
from shared.publishing import UnitOfWork

NOT_FOUND = ProblemKind(
    404, "schedule-not-found", "No such schedule", example="there is no schedule 'daily-sales-report'"
)
TOO_MANY = ProblemKind(
    422, "too-many-firings", "Too many due times", example=f"more than {MADE_UP_MAX} due times in that range"
)
PROBLEMS: Final[Mapping[type[Exception], ProblemKind]] = {
    ScheduleNotFoundError: NOT_FOUND,
    TooManyFiringsError: TOO_MANY,
}
_JOB_ID = "0198c0de-0000-7000-8000-000000000001"


class Application(Protocol):
    """What routes are added to."""

    def add_api_route(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        response_model: Any,
        status_code: int | None = None,
        responses: dict[int | str, dict[str, Any]] | None = None,
        methods: list[str] | None = None,
        response_class: type[Response] = ...,
    ) -> None:
        """As FastAPI has it."""
        ...


class ScheduleView(BaseModel):
    """A schedule: a cron expression in a time zone, or an interval."""

    name: str = Field(examples=["daily-sales-report"])
    state: Literal["active", "paused", "disabled"] = Field(
        description="Disabled is what no code declares any more."
    )
    cron: str | None = Field(examples=["0 9 * * *"])
    every_s: int | None
    time_zone: str = Field(examples=["Asia/Seoul"])
    next_due: datetime | None = Field(description="Null unless it is active.")
    last_due: datetime | None
    last_job: UUID | None = Field(examples=[_JOB_ID])
    waiting: int = Field(description="Firings that wait for an earlier one's job to end.")
    overlap: Overlap = Field(
        description="What is due while an earlier one's job runs is left out, waits, or runs."
    )
    grace_s: int = Field(description="What is more seconds late was missed.")
    made_up: int = Field(description="How many of what was missed fire all the same, the newest.")
    paused_at: datetime | None

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        state: Literal["active", "paused", "disabled"] = "active" if row.paused_at is None else "paused"
        if not row.declared:
            state = "disabled"
        return cls(
            name=row.name,
            state=state,
            cron=row.cron,
            every_s=row.every_s,
            time_zone=row.zone,
            next_due=row.next_due if state == "active" else None,
            last_due=row.last_due,
            last_job=row.last_job,
            waiting=len(row.held),
            overlap=row.overlap,
            grace_s=row.grace_s,
            made_up=row.made_up,
            paused_at=row.paused_at,
        )


class SchedulePage(BaseModel):
    """All schedules, by name."""

    items: list[ScheduleView]


class ScheduledJob(BaseModel):
    """The job that was submitted."""

    id: UUID = Field(examples=[_JOB_ID])
    result_url: str = Field(examples=[f"/jobs/{_JOB_ID}/result"])


class Backfill(BaseModel):
    """The due times from `first` to `last`, both included; what has not come yet is left out."""

    model_config = ConfigDict(extra="forbid")

    first: Timestamp = Field(examples=["2026-11-01T00:00:00+09:00"])
    last: Timestamp = Field(examples=["2026-11-28T00:00:00+09:00"])

    @model_validator(mode="after")
    def _first_comes_first(self) -> Self:
        if self.first > self.last:
            raise ValueError("first must not be after last")
        return self


class Backfilled(BaseModel):
    """The jobs of all due times of that range, those that had fired before among them."""

    jobs: list[UUID]


def add_schedules(app: Application, parts: Parts, schedules: Schedules) -> None:
    """Add what asks and orders about these schedules."""

    async def list_schedules() -> SchedulePage:
        """All schedules, by name."""
        async with parts.units.begin() as uow:
            rows = await schedules.list_all(uow)
        return SchedulePage(items=[ScheduleView.of(row) for row in rows])

    async def changed(
        request: Request, key: str | None, name: str, change: Callable[[UnitOfWork, str], Awaitable[None]]
    ) -> Response:
        async def work(uow: UnitOfWork) -> Answer:
            await change(uow, name)
            view = ScheduleView.of(await schedules.get(uow, name))
            return Answer(200, view.model_dump_json().encode())

        return await answer_once(parts.units, request, key, work)

    async def pause_schedule(name: str, request: Request, key: IdempotencyKey = None) -> Response:
        """Have it fire nothing until it is resumed, restarts or not."""
        return await changed(request, key, name, schedules.pause)

    async def resume_schedule(name: str, request: Request, key: IdempotencyKey = None) -> Response:
        """Go on from now; what was due meanwhile is not made up for."""
        return await changed(request, key, name, schedules.resume)

    async def run_schedule(name: str, request: Request, key: IdempotencyKey = None) -> Response:
        """Submit its job once more, with now as its due time, whether or not it is paused."""

        async def work(uow: UnitOfWork) -> Answer:
            url = f"/jobs/{(job_id := await schedules.run_now(uow, name))}"
            return Answer(202, ScheduledJob(id=job_id, result_url=f"{url}/result").model_dump_json().encode(), url)

        return await answer_once(parts.units, request, key, work)

    async def backfill_schedule(
        name: str, span: Backfill, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Submit the jobs of past due times that have none."""

        async def work(uow: UnitOfWork) -> Answer:
            jobs = await schedules.backfill(uow, name, span.first, span.last)
            return Answer(202, Backfilled(jobs=list(jobs)).model_dump_json().encode())

        return await answer_once(parts.units, request, key, work)

    app.add_api_route("/schedules", list_schedules, response_model=SchedulePage)
    posts: list[tuple[str, Callable[..., Any], int, type[BaseModel], tuple[ProblemKind, ...]]] = [
        ("pause", pause_schedule, 200, ScheduleView, ()),
        ("resume", resume_schedule, 200, ScheduleView, ()),
        ("run", run_schedule, 202, ScheduledJob, ()),
        ("backfill", backfill_schedule, 202, Backfilled, (TOO_MANY,)),
    ]
    for order, endpoint, status, model, problems in posts:
        app.add_api_route(
            f"/schedules/{{name}}/{order}",
            endpoint,
            methods=["POST"],
            status_code=status,
            response_model=model,
            responses=problem_responses(NOT_FOUND, KEY_REUSED, *problems),
        )
