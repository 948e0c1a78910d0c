"""The HTTP of the dead-letter service: the letters, their groups, and redrives."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from services.dead_letter import domain, handlers
from services.dead_letter.domain import LetterKind, State
from services.dead_letter.store.listing import Filter
from services.dead_letter.store.rows import Listed, Stored
from shared.http import pages
from shared.http.application import IdempotencyKey, service_app
from shared.http.idempotency import KEY_REUSED, Answer, answer_once
from shared.http.openapi import problem_responses
from shared.http.pages import PAGE_SIZE, Cursor, PageSize, page_of
from shared.http.problems import ProblemKind
from shared.http.readable import Readable, readable
from shared.http.timestamps import Timestamp
from shared.process import Parts
from shared.publishing import UnitOfWork

LETTER_ID = "7b1c2f0e-0000-5000-8000-000000000001"
REDRIVE_ID = "0198c0de-0000-7000-8000-0000000000d1"

NOT_FOUND = ProblemKind(
    404, "dead-letter-not-found", "No such dead letter", example=f"dead letter {LETTER_ID} does not exist"
)
REDRIVE_NOT_FOUND = ProblemKind(
    404, "redrive-not-found", "No such redrive", example=f"redrive {REDRIVE_ID} does not exist"
)
ILLEGAL = ProblemKind(
    409,
    "illegal-state-change",
    "The dead letter's state does not allow this",
    example=f"dead letter {LETTER_ID} is resolved and cannot be redriven",
)
PROBLEMS: dict[type[Exception], ProblemKind] = {
    domain.LetterNotFoundError: NOT_FOUND,
    domain.RedriveNotFoundError: REDRIVE_NOT_FOUND,
    domain.IllegalStateChangeError: ILLEGAL,
}


Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]


class LetterFilter(BaseModel):
    """Which letters; what is left out does not matter."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    state: State | None = None
    subscriber: Name | None = Field(None, examples=["notification"])
    channel: Name | None = Field(None, examples=["order"])
    type: Name | None = Field(None, description="The event type.", examples=["order.placed"])
    fingerprint: Name | None = Field(None, description="That of one cause; see the groups.")
    error_type: Name | None = Field(None, examples=["SchemaViolationError"])
    seen_from: Timestamp | None = Field(None, alias="from", description="First seen at this time or later.")
    seen_to: Timestamp | None = Field(None, alias="to", description="First seen before this time.")

    def wanted(self) -> Filter:
        values = {name: getattr(self, name) for name in Filter.__dataclass_fields__ if name != "states"}
        return Filter(states=frozenset() if self.state is None else frozenset({self.state}), **values)


class LetterQuery(LetterFilter):
    """A filter, and where the page begins."""

    cursor: Cursor = ""
    limit: PageSize = PAGE_SIZE


class LetterView(BaseModel):
    """A dead letter as lists show it."""

    id: UUID = Field(examples=[LETTER_ID])
    subscriber: str = Field(description="Who could not take it.", examples=["notification"])
    channel: str = Field(examples=["order"])
    source: str | None = Field(description="Null, as id and type are, where the bytes cannot be read.")
    event_id: str | None
    type: str | None = Field(examples=["order.placed"])
    key: str | None
    kind: LetterKind = Field(description="`delayed`: it may pass, and comes again when it is due.")
    state: State
    error_type: str = Field(examples=["SchemaViolationError"])
    error_message: str
    fingerprint: str
    attempts: int = Field(description="How often its subscriber has tried, in all.")
    redrives: int = Field(description="How often it was given back.")
    due_at: datetime | None = Field(
        description="When it is given back; of a redriven one, when its answer is overdue."
    )
    first_seen_at: datetime
    last_seen_at: datetime
    reason: str | None = Field(description="Why it was parked or discarded.")
    redrive_id: UUID | None = Field(description="The last redrive that was asked for with it.")

    @classmethod
    def of(cls, listed: Listed) -> LetterView:
        return cls(**{name: value for name, value in listed.flat().items() if name in cls.model_fields})


class HeaderView(BaseModel):
    """A header: its value, and how that is to be read."""

    name: str
    type: str = Field(
        examples=["text"],
        description="`text`, `bytes` (base64), `null`; and other types of AMQP: `int32`, `boolean`, `table`, …",
    )
    value: Any


class SentView(BaseModel):
    """A message exactly as it was sent, beside its body."""

    headers: list[HeaderView] = Field(description="In order, repeated ones too.")
    properties: dict[str, str | int] = Field(description="AMQP's.")
    key: str | None = Field(description="Kafka's, in base64.")
    body_is_null: bool = Field(description="On Kafka a body may be absent, which is not the same as empty.")


class LetterDetail(LetterView):
    """A dead letter with its message and where it failed."""

    headers: dict[str, str] = Field(description="As text, each name once; and notes on what was left out.")
    sent: SentView | None = Field(description="Exactly as it was sent; null where an earlier version kept it.")
    payload: Readable
    error_stack: str


class LetterPage(BaseModel):
    """Dead letters, newest first; `next_cursor` continues the list, null at its end."""

    items: list[LetterView]
    next_cursor: str | None = Field(examples=[pages.encode_cursor("4711")])


class GroupView(BaseModel):
    """Letters of one cause. Sample, message and type are those of the newest."""

    fingerprint: str
    subscriber: str
    channel: str
    error_type: str
    error_message: str
    type: str | None
    count: int
    states: dict[State, int]
    first_seen_at: datetime
    last_seen_at: datetime
    sample_id: UUID


class GroupList(BaseModel):
    """The largest groups first, at most 500."""

    items: list[GroupView]


class Discard(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Name = Field(examples=["a test order; nobody waits for it"])


class RedriveRequest(BaseModel):
    """Redrive every pending or parked letter that the filter finds, at most 50,000, at `rate_per_s`."""

    model_config = ConfigDict(extra="forbid")

    filter: LetterFilter = Field(description="An empty one finds every letter; it must be said.")
    rate_per_s: float = Field(50, ge=0.1, le=1_000, allow_inf_nan=False, strict=True)
    dry_run: bool = Field(default=False, strict=True, description="Only say what it would do.")


class RedriveAnswer(BaseModel):
    """`id` finds its progress; null where nothing is to be done."""

    id: UUID | None = Field(examples=[REDRIVE_ID])
    dry_run: bool
    matched: int
    states: dict[str, int]
    fingerprints: dict[str, int]


class RedriveProgress(BaseModel):
    """`waiting` for it are so many letters; the others, to which it came, are in these `states`."""

    id: UUID = Field(examples=[REDRIVE_ID])
    requested: int
    rate_per_s: float
    started_at: datetime
    waiting: int
    states: dict[State, int]
    finished: bool = Field(description="All have been given back; whether they are resolved, the states say.")


def detail_of(stored: Stored) -> LetterDetail:
    known = stored.flat()
    values = {name: known[name] for name in LetterDetail.model_fields if name != "payload"}
    return LetterDetail(**values, payload=readable(stored.body))


def create_app(parts: Parts) -> FastAPI:
    """The dead-letter service's HTTP application, for a process with the role `api`."""
    app = service_app(
        title="Tandem dead-letter service",
        description="Keeps the events that subscribers could not take, and gives them back.",
        telemetry=parts.telemetry,
        errors=PROBLEMS,
    )
    add_queries(app, parts)
    add_commands(app, parts)
    return app


def add_queries(app: FastAPI, parts: Parts) -> None:
    @app.get("/dead-letters")
    async def list_dead_letters(query: Annotated[LetterQuery, Query()]) -> LetterPage:
        """The dead letters that the filter finds, newest first."""
        before = pages.decode_sequence(query.cursor) if query.cursor else None
        async with parts.units.begin() as uow:
            fetch = partial(handlers.list_letters, uow, query.wanted(), before)
            letters, next_cursor = await page_of(fetch, query.limit, attrgetter("sequence"))
        return LetterPage(items=[LetterView.of(listed) for listed in letters], next_cursor=next_cursor)

    @app.get("/dead-letters/groups")
    async def list_groups(query: Annotated[LetterFilter, Query()]) -> GroupList:
        """The dead letters that the filter finds, by what caused them, the largest groups first."""
        async with parts.units.begin() as uow:
            groups = await handlers.list_groups(uow, query.wanted())
        return GroupList(
            items=[
                GroupView(**group, states={state: group[f"count_{state}"] for state in State}) for group in groups
            ]
        )

    @app.get("/dead-letters/redrives/{redrive_id}", responses=problem_responses(REDRIVE_NOT_FOUND))
    async def get_redrive(redrive_id: UUID) -> RedriveProgress:
        """How far a redrive has come."""
        async with parts.units.begin() as uow:
            found, waiting, states = await handlers.get_redrive(uow, redrive_id)
        return RedriveProgress(
            id=found.id,
            requested=found.requested,
            rate_per_s=found.rate_per_s,
            started_at=found.started_at,
            waiting=waiting,
            states={state: states.get(state, 0) for state in State},
            finished=found.next_at is None,
        )

    @app.get("/dead-letters/{letter_id:uuid}", responses=problem_responses(NOT_FOUND))
    async def get_dead_letter(letter_id: UUID) -> LetterDetail:
        """One dead letter with its message and where it failed."""
        async with parts.units.begin() as uow:
            return detail_of(await handlers.get_letter(uow, letter_id))


def add_commands(app: FastAPI, parts: Parts) -> None:
    units = parts.units

    @app.post(
        "/dead-letters/redrive",
        status_code=202,
        response_model=RedriveAnswer,
        responses=problem_responses(KEY_REUSED),
    )
    async def redrive_dead_letters(
        asked: RedriveRequest, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Give back, in the background and at a rate, every pending or parked letter that the filter finds."""

        async def work(uow: UnitOfWork) -> Answer:
            redrive_id, matched, counts = await handlers.redrive_letters(
                uow, asked.filter.wanted(), asked.rate_per_s, dry_run=asked.dry_run
            )
            view = RedriveAnswer(id=redrive_id, dry_run=asked.dry_run, matched=matched, **counts)
            where = f"/dead-letters/redrives/{redrive_id}" if redrive_id else None
            return Answer(202, view.model_dump_json().encode(), where)

        return await answer_once(units, request, key, work)

    @app.post(
        "/dead-letters/{letter_id}/redrive",
        status_code=202,
        response_model=LetterView,
        responses=problem_responses(NOT_FOUND, ILLEGAL, KEY_REUSED),
    )
    async def redrive_dead_letter(letter_id: UUID, request: Request, key: IdempotencyKey = None) -> Response:
        """Give one letter back to its subscriber, now."""

        async def work(uow: UnitOfWork) -> Answer:
            stored = await handlers.redrive_letter(uow, letter_id)
            where = f"/dead-letters/redrives/{stored.redrive_id}"
            return Answer(202, LetterView.of(stored).model_dump_json().encode(), where)

        return await answer_once(units, request, key, work)

    @app.post(
        "/dead-letters/{letter_id}/discard",
        response_model=LetterView,
        responses=problem_responses(NOT_FOUND, ILLEGAL, KEY_REUSED),
    )
    async def discard_dead_letter(
        letter_id: UUID, discard: Discard, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Say that a letter need not take effect."""

        async def work(uow: UnitOfWork) -> Answer:
            stored = await handlers.discard_letter(uow, letter_id, discard.reason)
            return Answer(200, LetterView.of(stored).model_dump_json().encode())

        return await answer_once(units, request, key, work)
