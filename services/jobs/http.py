"""The HTTP of the jobs service: what it accepts, shows and answers."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import FastAPI, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from services.jobs import domain, handlers
from shared.http.application import IdempotencyKey, service_app
from shared.http.idempotency import KEY_REUSED, Answer, answer_once
from shared.http.openapi import problem_responses
from shared.http.problems import ProblemKind
from shared.jobs import (
    JobCancelledError,
    JobFailedError,
    JobStateError,
    Outcome,
    Result,
    ResultExpiredError,
    ResultTooLargeError,
    Signature,
    reading,
    require_result,
)
from shared.jobs.board import routes as board
from shared.jobs.board.views import JOB_ID, ErrorView, JobView
from shared.jobs.schedules import routes as schedules
from shared.jobs.workers import routes as workers
from shared.process import Parts
from shared.publishing import Submitted, UnitOfWork

WAIT_MAX_S = 30
_LOOK_INTERVAL_S = 0.1
_RETRY_AFTER_S = 1

ILLEGAL = ProblemKind(
    409, "illegal-state-change", "The job's state does not allow this", example=f"job {JOB_ID} has succeeded"
)
CANCELLED = ProblemKind(409, "job-cancelled", "The job was cancelled", example=f"{JOB_ID} was cancelled")
EXPIRED = ProblemKind(
    410, "result-expired", "The result is no longer kept", example=f"{JOB_ID} is over for too long"
)
TOO_LARGE = ProblemKind(
    409,
    "results-too-large",
    "These results are too large to be answered together; each step's can be asked for",
    example="40,000,000 bytes of results together, over the 33,554,432 allowed",
)
FAILED = ProblemKind(500, "job-failed", "The job has failed", example="ValueError: a reason")


PROBLEMS: dict[type[Exception], ProblemKind] = {
    JobStateError: ILLEGAL,
    JobFailedError: FAILED,
    JobCancelledError: CANCELLED,
    ResultExpiredError: EXPIRED,
    ResultTooLargeError: TOO_LARGE,
    **board.PROBLEMS,
    **schedules.PROBLEMS,
    **workers.PROBLEMS,
}
RESULT_PROBLEMS = (board.NOT_FOUND, FAILED, CANCELLED, TOO_LARGE, EXPIRED)
RESULT_PATHS = (
    ("/jobs/{task_id:uuid}/result", "get_job_result", "The result of a job, or of one of its steps."),
    ("/groups/{task_id:uuid}/result", "get_group_result", "The same, with each member's."),
    ("/result/{task_id:uuid}", "get_result_of_task", "Short for `/jobs/{task_id}/result`."),
    ("/result/group/{task_id:uuid}", "get_result_of_group", "Short for `/groups/{task_id}/result`."),
)


class Accepted(BaseModel):
    """A job that is written down."""

    id: UUID = Field(examples=[JOB_ID])
    result_url: str = Field(examples=[f"/jobs/{JOB_ID}/result"])


class ResultView(BaseModel):
    """A result, once `state` is done; `members` where it is the list of several steps' results."""

    id: UUID = Field(examples=[JOB_ID])
    state: Outcome
    result: Any = None
    error: ErrorView | None = None
    members: list[ResultView] | None = None

    @classmethod
    def of(cls, result: Result) -> Self:
        members = None if result.members is None else [cls.of(member) for member in result.members]
        return cls(id=result.id, state=result.outcome, result=result.value, error=result.error, members=members)


Chosen = Annotated[int | None, Query(ge=-domain.NUMBER_MAX, le=domain.NUMBER_MAX)]


class Solo(BaseModel):
    """A job that was submitted in short."""

    message: str = Field(examples=["a=45, b=23: submitted"])
    task_id: UUID
    status_code: int = 200


class SoloGroup(BaseModel):
    """A group that was submitted in short."""

    message: str
    group_id: UUID
    individual_tasks: list[UUID]
    check_result_url: str


def create_app(parts: Parts) -> FastAPI:
    """The jobs service's HTTP application, for a process with the role `api`."""
    app = service_app(
        title="Tandem jobs service",
        description="Takes jobs, runs their steps and tells how they stand.",
        telemetry=parts.telemetry,
        errors=PROBLEMS,
        outbox_gate=parts.outbox_gate,
    )
    board.add_board(app, parts)
    add_results(app, parts)
    for kind in handlers.KINDS:
        add_kind(app, parts, kind)
    add_commands(app, parts)
    add_short_forms(app, parts)
    schedules.add_schedules_of_all(app, parts, handlers.schedules(parts.settings), "jobs")
    workers.add_workers(app, parts)
    return app


# -- asking


def add_results(app: FastAPI, parts: Parts) -> None:
    answers: dict[str, Any] = {
        "response_model": ResultView,
        "responses": {202: {"model": ResultView, "description": "Not yet"}, **problem_responses(*RESULT_PROBLEMS)},
    }

    async def get_result(task_id: UUID) -> Response:
        return result_response(await read_result(parts, task_id))

    for path, name, said in RESULT_PATHS:
        app.get(path, name=name, description=said, **answers)(get_result)


async def read_result(parts: Parts, task_id: UUID) -> Result:
    """How a result stands. Raises `JobNotFoundError`, and as `reading.loaded`."""
    async with parts.units.begin() as uow:
        result = await handlers.get_result(uow, task_id)
    return await reading.loaded(result, parts)


def result_response(result: Result) -> Response:
    """200 with the result, or 202 while there is none yet.

    Raises `JobFailedError`, `JobCancelledError`, `ResultExpiredError` where there will be none.
    """
    require_result(result)
    view = ResultView.of(result)
    if result.outcome is Outcome.DONE:
        return Response(view.model_dump_json(), 200, media_type="application/json")
    return Response(view.model_dump_json(), 202, {"retry-after": str(_RETRY_AFTER_S)}, "application/json")


# -- ordering


def add_kind(app: FastAPI, parts: Parts, kind: str) -> None:
    """The route that submits a job of this kind."""
    known = handlers.KINDS[kind]

    async def submit_job(args: Any, request: Request, key: IdempotencyKey = None) -> Response:
        async def work(uow: UnitOfWork) -> Answer:
            return accepted((await handlers.submit(uow, kind, known.graph(args))).job_id)

        response = await answer_once(parts.units, request, key, work)
        return await waited(parts, request, response)

    submit_job.__annotations__["args"] = known.args
    submit_job.__doc__ = (
        f"Submit a job `{kind}`. With `Prefer: wait=10` the answer is the result, 200, if it is there within "
        f"so many seconds, at most {WAIT_MAX_S}."
    )
    app.post(
        f"/jobs/{kind}",
        name=f"submit_{kind.replace('-', '_')}",
        status_code=202,
        response_model=Accepted,
        responses={
            200: {"model": ResultView, "description": "Done within the time that the client wished to wait"},
            **problem_responses(KEY_REUSED, FAILED),
        },
    )(submit_job)


def accepted(job_id: UUID) -> Answer:
    url = f"/jobs/{job_id}"
    return Answer(202, Accepted(id=job_id, result_url=f"{url}/result").model_dump_json().encode(), url)


def wait_s(request: Request) -> int:
    """The seconds of `Prefer: wait=…` (RFC 7240, 4.3), at most `WAIT_MAX_S`; 0 without it, or where it is none."""
    prefer = ",".join(request.headers.getlist("prefer"))
    found = re.search(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:[;,]|$)', prefer, re.IGNORECASE)
    return 0 if found is None else min(int(found[1]), WAIT_MAX_S)


async def waited(parts: Parts, request: Request, response: Response) -> Response:
    """The result in place of `response`, a job's 202, if it comes within the time that the client would wait."""
    wished_s = wait_s(request)
    deadline = time.monotonic() + wished_s
    job_id = UUID(response.headers["location"].rpartition("/")[2])
    while time.monotonic() < deadline:
        result = await read_result(parts, job_id)
        if result.outcome is not Outcome.PENDING:
            done = result_response(result)
            done.headers["location"] = response.headers["location"]
            done.headers["preference-applied"] = f"wait={wished_s}"
            return done
        await asyncio.sleep(_LOOK_INTERVAL_S)
    return response


def add_commands(app: FastAPI, parts: Parts) -> None:
    change: dict[str, Any] = {
        "response_model": JobView,
        "responses": problem_responses(board.NOT_FOUND, ILLEGAL, KEY_REUSED),
    }

    async def changed(
        request: Request, key: str | None, job_id: UUID, change: Callable[[UnitOfWork, UUID], Awaitable[Any]]
    ) -> Response:
        async def work(uow: UnitOfWork) -> Answer:
            return Answer(200, JobView.model_validate(await change(uow, job_id)).model_dump_json().encode())

        return await answer_once(parts.units, request, key, work)

    @app.post("/jobs/{job_id:uuid}/cancel", **change)
    async def cancel_job(job_id: UUID, request: Request, key: IdempotencyKey = None) -> Response:
        """End all steps of a job that do not run yet."""
        return await changed(request, key, job_id, handlers.cancel_job)

    @app.post("/jobs/{job_id:uuid}/retry", **change)
    async def retry_job(job_id: UUID, request: Request, key: IdempotencyKey = None) -> Response:
        """Have a job that has failed or was cancelled go on from there."""
        return await changed(request, key, job_id, handlers.retry_job)


# -- the short forms


def add_short_forms(app: FastAPI, parts: Parts) -> None:
    """What the users of the system before this one type."""

    async def submitted(kind: str, graph: Signature) -> Submitted:
        async with parts.units.begin() as uow:
            return await handlers.submit(uow, kind, graph)

    @app.get("/solo/add")
    async def solo_add(a: Chosen = None, b: Chosen = None, seconds: handlers.Seconds = domain.ADD_SECONDS) -> Solo:
        """Submit the sum of two numbers, drawn unless said."""
        args = handlers.Add(a=drawn(a), b=drawn(b), seconds=seconds)
        job = await submitted("add", handlers.KINDS["add"].graph(args))
        return Solo(message=f"a={args.a}, b={args.b}: submitted", task_id=job.job_id)

    @app.get("/solo/chain")
    async def solo_chain(
        a: Chosen = None, b: Chosen = None, seconds: handlers.Seconds = domain.MULTIPLY_SECONDS
    ) -> Solo:
        """Submit the sum of two numbers, and behind it each of them times the sum."""
        args = handlers.SumAndMultiply(a=drawn(a), b=drawn(b), seconds=seconds)
        job = await submitted("sum-and-multiply", handlers.KINDS["sum-and-multiply"].graph(args))
        return Solo(message=f"a={args.a}, b={args.b}: chain submitted", task_id=job.job_id)

    @app.get("/solo/group")
    async def solo_group(a: Chosen = None, b: Chosen = None, seconds: handlers.Seconds | None = None) -> SoloGroup:
        """Submit the sum of two numbers and their product, side by side; 20 and 2 seconds unless said."""
        add_s = domain.ADD_SECONDS if seconds is None else seconds
        multiply_s = domain.MULTIPLY_SECONDS if seconds is None else seconds
        args = handlers.TwoNumbers(a=drawn(a), b=drawn(b))
        job = await submitted("group", handlers.sum_beside_product(args, add_s, multiply_s))
        return SoloGroup(
            message=f"a={args.a}, b={args.b}: group submitted",
            group_id=job.job_id,
            individual_tasks=list(job.outputs),
            check_result_url=f"/result/group/{job.job_id}",
        )


def drawn(number: int | None) -> int:
    """A small number, unless one was chosen."""
    return random.randint(1, domain.EXAMPLE_MAX) if number is None else number  # noqa: S311 - an example
