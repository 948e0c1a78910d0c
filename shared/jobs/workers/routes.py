"""HTTP of workers, for any service that has leased steps: its http.py calls `add_workers`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import RowMapping
from starlette.requests import Request
from starlette.responses import Response

from shared.http.application import IdempotencyKey
from shared.http.idempotency import KEY_REUSED, Answer, answer_once
from shared.http.openapi import problem_responses
from shared.http.problems import ProblemKind
from shared.jobs.board.views import ProgressView
from shared.jobs.schedules.routes import Application
from shared.jobs.workers import store
from shared.jobs.workers.store import WorkerNotFoundError
from shared.process import Parts
from shared.publishing import UnitOfWork

_WORKER_ID = "0198c0de-0000-7000-8000-000000000002"
NOT_FOUND = ProblemKind(404, "worker-not-found", "No such worker", example=f"worker {_WORKER_ID} does not exist")
PROBLEMS: Final[Mapping[type[Exception], ProblemKind]] = {WorkerNotFoundError: NOT_FOUND}


class RunningStep(BaseModel):
    """A step that a worker runs."""

    id: UUID
    job_id: UUID
    handler: str = Field(examples=["add"])
    queue: str = Field(examples=["io"])
    attempt: int
    started_at: datetime
    progress: ProgressView | None = Field(description="As the step reports it, null if it does not.")


class WorkerView(BaseModel):
    """A process that runs leased steps."""

    id: UUID = Field(examples=[_WORKER_ID])
    state: Literal["alive", "draining", "lost"] = Field(
        description="Draining: it takes no more steps. Lost: it has not said that it lives for too long, and its "
        "steps go to others."
    )
    process: str = Field(examples=["jobs-worker"])
    host: str
    pid: int
    slots: int = Field(description="How many steps it runs at once, all queues together.")
    running: int = Field(description="How many it held when it last said so, those leased ahead among them.")
    rss_mib: float | None = Field(description="Memory of its own process, without its children.")
    started_at: datetime
    heartbeat_at: datetime
    steps: list[RunningStep] = Field(description=f"What it runs, the oldest {store.STEPS_SHOWN_MAX} at most.")

    @classmethod
    def of(cls, row: RowMapping) -> Self:
        state: Literal["alive", "draining", "lost"] = "draining" if row["draining"] else "alive"
        if row["alive_until"] <= row["now"]:
            state = "lost"
        return cls.model_validate({**row, "state": state, "heartbeat_at": row["beat_at"]})


class WorkerPage(BaseModel):
    """All workers, the longest known first."""

    items: list[WorkerView]


def add_workers(app: Application, parts: Parts) -> None:
    """Add what asks about this service's workers, and what drains one."""

    async def list_workers() -> WorkerPage:
        """The processes that run leased steps, and what each is at."""
        async with parts.units.begin() as uow:
            rows = await store.list_workers(uow.connection)
        return WorkerPage(items=[WorkerView.of(row) for row in rows])

    async def drain_worker(worker_id: UUID, request: Request, key: IdempotencyKey = None) -> Response:
        """Have a worker take no more steps, for the rest of its life; what it runs goes on to its end."""

        async def work(uow: UnitOfWork) -> Answer:
            await store.drain(uow.connection, worker_id)
            view = WorkerView.of(await store.find_worker(uow.connection, worker_id))
            return Answer(200, view.model_dump_json().encode())

        return await answer_once(parts.units, request, key, work)

    app.add_api_route("/workers", list_workers, response_model=WorkerPage)
    answers: dict[int | str, dict[str, Any]] = problem_responses(NOT_FOUND, KEY_REUSED)
    app.add_api_route(
        "/workers/{worker_id:uuid}/drain",
        drain_worker,
        methods=["POST"],
        response_model=WorkerView,
        responses=answers,
    )
