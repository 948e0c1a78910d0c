"""The HTTP by which a load submits graphs of jobs: `POST /graphs` with a number, and in how many steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from shared.http.application import IdempotencyKey, service_app
from shared.http.idempotency import Answer, answer_once
from shared.jobs import Signature
from shared.process import Parts
from shared.publishing import UnitOfWork

KIND = "played"


class Asked(BaseModel):
    """Which graph, and of how many steps where it may have more or fewer."""

    number: int
    steps: int = 1


def graphs_app(parts: Parts, graph: Callable[[Asked], Signature]) -> Any:
    """The application, for a process with the role `api` of a service with jobs."""
    app = service_app(title="Jobs that are played", description="", telemetry=parts.telemetry)

    async def submit(asked: Asked, request: Request, key: IdempotencyKey = None) -> Response:
        async def work(uow: UnitOfWork) -> Answer:
            submitted = await uow.submit(graph(asked), kind=KIND)
            return Answer(202, b'{"id": "%s"}' % str(submitted.job_id).encode())

        return await answer_once(parts.units, request, key, work)

    # Said as objects: a function inside another one has no names that could be looked up.
    submit.__annotations__.update(asked=Asked, request=Request, key=IdempotencyKey)
    app.post("/graphs", status_code=202)(submit)
    return app
