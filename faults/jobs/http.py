"""The HTTP by which the load submits graphs: `POST /graphs` with the graph's number."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from faults.jobs.played import graph
from shared.http.application import IdempotencyKey, service_app
from shared.http.idempotency import Answer, answer_once
from shared.process import Parts
from shared.publishing import UnitOfWork


class Asked(BaseModel):
    """Which graph."""

    number: int


def create_app(parts: Parts) -> Any:
    """The application, for a process with the role `api`."""
    app = service_app(title="Jobs that are played", description="", telemetry=parts.telemetry)

    async def submit(asked: Asked, request: Request, key: IdempotencyKey = None) -> Response:
        async def work(uow: UnitOfWork) -> Answer:
            submitted = await uow.submit(graph(asked.number), kind="played")
            return Answer(202, b'{"id": "%s"}' % str(submitted.job_id).encode())

        return await answer_once(parts.units, request, key, work)

    # Said as objects: a function inside another one has no names that could be looked up.
    submit.__annotations__.update(asked=Asked, request=Request, key=IdempotencyKey)
    app.post("/graphs", status_code=202)(submit)
    return app
