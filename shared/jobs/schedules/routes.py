"""HTTP of schedules, for any service that has some: its http.py calls `add_schedules`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, Protocol, Self
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import Row
from starlette.requests import Request
from starlette.responses import Response

from shared.errors import TransientError
from shared.http.application import IdempotencyKey
from shared.http.idempotency import KEY_REUSED, Answer, answer_once
from shared.http.openapi import problem_responses
from shared.http.problems import ProblemKind
from shared.http.timestamps import Timestamp
from shared.jobs.schedules.catch_up import MADE_UP_MAX
from shared.jobs.schedules.schedule import Overlap, ScheduleNotFoundError, TooManyFiringsError
from shared.jobs.schedules.schedules import Schedules
from shared.outside.conditional_get import RefusedAnswerError, Version, get_if_changed
from shared.process import Parts
from shared.publishing import UnitOfWork

_log = structlog.get_logger(__name__)

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
_ANSWER_S: Final = 2.0
_ANSWER_BYTES_MAX: Final = 4 * 2**20
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


class ServiceSchedule(ScheduleView):
    """A schedule, and the service whose it is, which pauses it, runs it now and fills it in."""

    service: str = Field(examples=["report"])


class ScheduleTable(BaseModel):
    """The schedules of all services, by service and name; of those named in `unanswered` nothing is known now."""

    items: list[ServiceSchedule]
    unanswered: list[str] = Field(examples=[["report"]])


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
        return SchedulePage(items=await _own(parts, schedules))

    app.add_api_route("/schedules", list_schedules, response_model=SchedulePage)
    add_orders(app, parts, schedules)


def add_schedules_of_all(app: Application, parts: Parts, schedules: Schedules, service: str) -> None:
    """The same, with those of other services beside the ones of this `service` in the list."""
    elsewhere = parts.settings.schedules_elsewhere

    async def list_schedules() -> ScheduleTable:
        """The schedules of all services, by service and name."""
        own, *others = await asyncio.gather(
            _own(parts, schedules), *(_theirs(name, url) for name, url in elsewhere.items())
        )
        found = {service: own, **dict(zip(elsewhere, others, strict=True))}
        items = [
            ServiceSchedule(service=name, **one.model_dump())
            for name in sorted(found)
            for one in found[name] or []
        ]
        return ScheduleTable(items=items, unanswered=sorted(name for name, told in found.items() if told is None))

    app.add_api_route("/schedules", list_schedules, response_model=ScheduleTable)
    add_orders(app, parts, schedules)


async def _own(parts: Parts, schedules: Schedules) -> list[ScheduleView]:
    async with parts.units.begin() as uow:
        rows = await schedules.list_all(uow)
    return [ScheduleView.of(row) for row in rows]


async def _theirs(name: str, url: str) -> list[ScheduleView] | None:
    """What a service says of its schedules, None where it says nothing of use in time."""
    try:
        told = await get_if_changed(
            f"{url.rstrip('/')}/schedules", Version(), timeout_s=_ANSWER_S, bytes_max=_ANSWER_BYTES_MAX
        )
        return [] if told is None else SchedulePage.model_validate_json(told.content).items
    except (TransientError, RefusedAnswerError, ValidationError) as error:
        _log.warning("schedules.unanswered", service=name, error=str(error)[:500])
        return None


def add_orders(app: Application, parts: Parts, schedules: Schedules) -> None:
    """Add what orders about these schedules."""

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
