"""The HTTP of the notification service: the list of what users were told."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Annotated
from uuid import UUID

from fastapi import FastAPI
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from services.notification import handlers
from shared.http import pages
from shared.http.application import service_app
from shared.http.pages import PAGE_SIZE, Cursor, PageSize, page_of
from shared.http.problems import InvalidRequestError, ProblemKind
from shared.jobs.board import routes as board
from shared.jobs.schedules import routes as schedule_routes
from shared.jobs.workers import routes as workers
from shared.process import Parts

ORDER_ID = "0198c0de-0000-7000-8000-000000000001"
USER_ID = "0198c0de-0000-7000-8000-00000000000a"

PROBLEMS: dict[type[Exception], ProblemKind] = {
    **board.PROBLEMS,
    **schedule_routes.PROBLEMS,
    **workers.PROBLEMS,
}

# `?user_id=&order_id=…` leaves the user open, and the document says so: a query has no null, but empty values.
MaybeId = Annotated[
    UUID | None,
    BeforeValidator(lambda value: value or None),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "uuid"}, {"type": "string", "maxLength": 0}]}),
]


class NotificationView(BaseModel):
    """A notification as the API shows it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    event_source: str = Field(description="Who published the event.", examples=["/services/order"])
    event_id: str = Field(description="The event that it tells of; there is one notification for each.")
    event_type: str = Field(examples=["order.placed"])
    user_id: UUID = Field(examples=[USER_ID])
    order_id: UUID | None = Field(examples=[ORDER_ID])
    version: int = Field(description="That of the order, user or transfer at the event.", examples=[1])
    title: str = Field(examples=["We have your order"])
    body: str = Field(examples=[f"Your order {ORDER_ID} of 25.00 EUR is placed."])
    recorded_at: datetime


class NotificationPage(BaseModel):
    """Notifications, newest first; `next_cursor` continues the list, null at its end."""

    items: list[NotificationView]
    next_cursor: str | None = Field(examples=[pages.encode_cursor("4711")])


def create_app(parts: Parts) -> FastAPI:
    """The notification service's HTTP application, for a process with the role `api`."""
    app = service_app(
        title="Tandem notification service",
        description="Tells users what happened to their orders and their account.",
        telemetry=parts.telemetry,
        errors=PROBLEMS,
    )
    add_routes(app, parts)
    board.add_board(app, parts)
    schedule_routes.add_schedules(app, parts, handlers.schedules(parts.settings))
    workers.add_workers(app, parts)
    return app


def add_routes(app: FastAPI, parts: Parts) -> None:
    @app.get("/notifications")
    async def list_notifications(
        user_id: MaybeId = None,
        order_id: MaybeId = None,
        cursor: Cursor = "",
        limit: PageSize = PAGE_SIZE,
    ) -> NotificationPage:
        """The notifications of a user, of an order, or of both together, newest first."""
        if user_id is None and order_id is None:
            raise InvalidRequestError(["query"], "give a user_id or an order_id")
        before = pages.decode_sequence(cursor) if cursor else None
        async with parts.units.begin() as uow:
            fetch = partial(handlers.list_notifications, uow, user_id, order_id, before)
            notifications, next_cursor = await page_of(fetch, limit, attrgetter("sequence"))
        items = [NotificationView.model_validate(notification) for notification in notifications]
        return NotificationPage(items=items, next_cursor=next_cursor)
