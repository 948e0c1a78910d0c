"""The HTTP of the notification service: the list of what users were told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from services.notification import handlers
from shared.http import application, openapi, pages, problems
from shared.http.openapi import problem_responses
from shared.http.pages import PAGE_SIZE, PAGE_SIZE_MAX
from shared.http.problems import InvalidRequestError
from shared.process.parts import Parts

ORDER_ID = "0198c0de-0000-7000-8000-000000000001"
USER_ID = "0198c0de-0000-7000-8000-00000000000a"

# `?user_id=&order_id=…` leaves the user open.
MaybeId = Annotated[UUID | None, BeforeValidator(lambda value: value or None)]


class NotificationView(BaseModel):
    """A notification as the API shows it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    event_source: str = Field(description="Who published the event.", examples=["/services/order"])
    event_id: str = Field(description="The event that it tells of; there is one notification for each.")
    event_type: str = Field(examples=["order.placed"])
    user_id: UUID = Field(examples=[USER_ID])
    order_id: UUID | None = Field(examples=[ORDER_ID])
    version: int = Field(description="That of the order or user at the event.", examples=[1])
    title: str = Field(examples=["We have your order"])
    body: str = Field(examples=[f"Your order {ORDER_ID} of 25.00 EUR is placed."])
    recorded_at: datetime


class NotificationPage(BaseModel):
    """Notifications, newest first; `next_cursor` continues the list, null at its end."""

    items: list[NotificationView]
    next_cursor: str | None = Field(examples=[pages.encode_cursor("4711")])


def create_app(parts: Parts) -> FastAPI:
    app = FastAPI(
        title="Tandem notification service",
        version="1.0.0",
        description="Tells users what happened to their orders and their account.",
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        responses=problem_responses(problems.INVALID, problems.UNEXPECTED, problems.UNAVAILABLE),
    )
    application.install(app, RequestValidationError, {})
    add_routes(app, parts)
    openapi.add_problem_schema(app.openapi())
    parts.telemetry.instrument_http(app)
    return app


def add_routes(app: FastAPI, parts: Parts) -> None:
    @app.get("/notifications")
    async def list_notifications(
        user_id: MaybeId = None,
        order_id: MaybeId = None,
        cursor: Annotated[str, Query(description="`next_cursor` of the page before.")] = "",
        limit: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)] = PAGE_SIZE,
    ) -> NotificationPage:
        """The notifications of a user, of an order, or of both together, newest first."""
        if user_id is None and order_id is None:
            raise InvalidRequestError(["query"], "give a user_id or an order_id")
        before = pages.decode_sequence(cursor) if cursor else None
        async with parts.units.begin() as uow:
            found = await handlers.list_notifications(uow, user_id, order_id, before, limit + 1)
        items = [NotificationView.model_validate(notification) for notification in found[:limit]]
        more = len(found) > limit
        return NotificationPage(
            items=items, next_cursor=pages.encode_cursor(str(found[limit - 1].sequence)) if more else None
        )
