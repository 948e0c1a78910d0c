"""The HTTP of the fraud service: the verdicts, the list that is in force, and one to try with."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from hashlib import sha256
from operator import attrgetter
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import FastAPI, Header
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import PlainTextResponse, Response

from services.fraud import domain
from services.fraud.domain import Verdict
from services.fraud.handlers import evaluations, schedules
from shared.http import pages
from shared.http.application import service_app
from shared.http.openapi import problem_responses
from shared.http.pages import PAGE_SIZE, Cursor, PageSize, page_of
from shared.http.problems import ProblemKind
from shared.jobs.board import routes as board
from shared.jobs.schedules import routes as schedule_routes
from shared.jobs.workers import routes as workers
from shared.process import Parts

ORDER_ID = "0198c0de-0000-7000-8000-000000000001"
USER_ID = "0198c0de-0000-7000-8000-00000000000a"
EXAMPLE_PATH: Final = "/example-threats.txt"
EXAMPLE_LIST: Final = """\
# A threat-intelligence list to try with: networks kept for documentation (RFC 5737, RFC 3849), and nobody's mail.
192.0.2.66
198.51.100.0/24
203.0.113.0/24
2001:db8:bad::/48
mallory@example.com
@fraud.example
"""
_EXAMPLE_ETAG: Final = f'"{sha256(EXAMPLE_LIST.encode()).hexdigest()[:16]}"'

NOT_FOUND = ProblemKind(
    404,
    "evaluation-not-found",
    "No such evaluation",
    example=f"order {ORDER_ID} is not evaluated, or not yet",
)
PROBLEMS: dict[type[Exception], ProblemKind] = {
    domain.EvaluationNotFoundError: NOT_FOUND,
    **board.PROBLEMS,
    **schedule_routes.PROBLEMS,
    **workers.PROBLEMS,
}


class ReasonView(BaseModel):
    """A rule that applied."""

    model_config = ConfigDict(from_attributes=True)

    rule: str = Field(examples=["amount"])
    points: int = Field(examples=[40])
    said: str = Field(examples=["the amount is at least 100000 EUR minor units"])


class EvaluationView(BaseModel):
    """How an order was judged; there is one evaluation for each."""

    model_config = ConfigDict(from_attributes=True)

    order_id: UUID = Field(examples=[ORDER_ID])
    user_id: UUID = Field(examples=[USER_ID])
    verdict: Verdict
    score: int = Field(ge=0, le=domain.SCORE_MAX, description="The sum of the reasons' points, at most 100.")
    reasons: list[ReasonView]
    evaluated_by: Literal["event", "batch"] = Field(
        description="As the order was placed, or by the batch of the night after."
    )
    evaluated_at: datetime


class EvaluationPage(BaseModel):
    """Evaluations, newest first; `next_cursor` continues the list, null at its end."""

    items: list[EvaluationView]
    next_cursor: str | None = Field(examples=[pages.encode_cursor("4711")])


class ThreatListView(BaseModel):
    """The threat-intelligence list that is in force; all null before one was fetched."""

    model_config = ConfigDict(from_attributes=True)

    url: str | None = None
    etag: str | None = None
    entries: int = 0
    fetched_at: datetime | None = None
    checked_at: datetime | None = Field(None, description="When its server last said that it is current.")


def create_app(parts: Parts) -> FastAPI:
    """The fraud service's HTTP application, for a process with the role `api`."""
    app = service_app(
        title="Tandem fraud service",
        description="Judges every order that is placed.",
        telemetry=parts.telemetry,
        errors=PROBLEMS,
        outbox_gate=parts.outbox_gate,
    )
    add_evaluations(app, parts)
    add_threats(app, parts)
    board.add_board(app, parts)
    schedule_routes.add_schedules(app, parts, schedules(parts.settings))
    workers.add_workers(app, parts)
    return app


def add_evaluations(app: FastAPI, parts: Parts) -> None:
    @app.get("/evaluations/{order_id}", responses=problem_responses(NOT_FOUND))
    async def get_evaluation(order_id: UUID) -> EvaluationView:
        """How an order was judged, and why."""
        async with parts.units.begin() as uow:
            return EvaluationView.model_validate(await evaluations.get_evaluation(uow, order_id))

    @app.get("/evaluations")
    async def list_evaluations(
        verdict: Verdict | None = None,
        cursor: Cursor = "",
        limit: PageSize = PAGE_SIZE,
    ) -> EvaluationPage:
        """Evaluations, of one verdict where it is said, newest first."""
        before = pages.decode_sequence(cursor) if cursor else None
        async with parts.units.begin() as uow:
            fetch = partial(evaluations.list_evaluations, uow, verdict, before)
            found, next_cursor = await page_of(fetch, limit, attrgetter("sequence"))
        return EvaluationPage(items=[EvaluationView.model_validate(one) for one in found], next_cursor=next_cursor)


def add_threats(app: FastAPI, parts: Parts) -> None:
    @app.get("/threat-list")
    async def get_threat_list() -> ThreatListView:
        """The list by which IP and e-mail addresses are looked up, without its entries."""
        async with parts.units.begin() as uow:
            found = await evaluations.get_list(uow)
        return ThreatListView() if found is None else ThreatListView.model_validate(found)

    @app.get(
        EXAMPLE_PATH,
        response_class=PlainTextResponse,
        responses={304: {"description": "It has not changed"}},
    )
    async def get_example_threats(if_none_match: Annotated[str | None, Header()] = None) -> Response:
        """A list to try with, in the place of somebody's: `make up-*` has this service fetch it."""
        headers = {"etag": _EXAMPLE_ETAG, "cache-control": "no-cache"}
        if if_none_match is not None and _EXAMPLE_ETAG in if_none_match:
            return Response(status_code=304, headers=headers)
        return PlainTextResponse(EXAMPLE_LIST, headers=headers)
