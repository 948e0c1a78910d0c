"""The HTTP of the order service: what it accepts, shows and answers."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache, partial
from ipaddress import ip_address
from operator import attrgetter
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_extra_types.currency_code import Currency as Iso4217  # without bonds, metals and test codes
from sqlalchemy.exc import IntegrityError
from starlette.requests import Request
from starlette.responses import Response

from services.order import domain, handlers, store
from services.order.domain import Line, Order, OrderStatus, Verdict
from services.order.store import Users
from shared.errors import UnavailableError
from shared.http import pages
from shared.http.application import IdempotencyKey, service_app
from shared.http.idempotency import KEY_REUSED, Answer, answer_once
from shared.http.openapi import problem_responses
from shared.http.pages import PAGE_SIZE, Cursor, PageSize, page_of
from shared.http.problems import ProblemKind
from shared.process import Parts
from shared.publishing import UnitOfWork

ORDER_ID = "0198c0de-0000-7000-8000-000000000001"
USER_ID = "0198c0de-0000-7000-8000-00000000000a"
_READS_MAX = 5
"""Of a user that changes each time between being read and the order's insert."""
USER_NOT_KNOWN_RETRY_S = 1
"""An event is here in well under a second when everything runs."""

NOT_FOUND = ProblemKind(404, "order-not-found", "No such order", example=f"order {ORDER_ID} does not exist")
ILLEGAL = ProblemKind(
    409,
    "illegal-state-change",
    "The order's state does not allow this",
    example=f"order {ORDER_ID} is paid and cannot become cancelled",
)
USER_NOT_KNOWN = ProblemKind(
    409,
    "user-not-known",
    "The user is not known, or not yet",
    USER_NOT_KNOWN_RETRY_S,
    example=f"user {USER_ID} is not known here, or not yet",
)
USER_DEACTIVATED = ProblemKind(
    409, "user-deactivated", "The user is deactivated", example=f"user {USER_ID} is deactivated"
)
PROBLEMS: dict[type[Exception], ProblemKind] = {
    domain.OrderNotFoundError: NOT_FOUND,
    domain.IllegalStateChangeError: ILLEGAL,
    domain.UserNotKnownError: USER_NOT_KNOWN,
    domain.UserDeactivatedError: USER_DEACTIVATED,
}


# ISO 4217 also has codes for funds and units of account, in which nobody pays.
FUNDS = frozenset({"BOV", "CHE", "CHW", "CLF", "COU", "MXV", "USN", "UYI", "UYW", "XAD", "XSU", "XUA"})
CURRENCIES = frozenset(Iso4217.allowed_currencies) - FUNDS


def _payable(code: str) -> str:
    if code not in CURRENCIES:
        raise ValueError("not a currency of ISO 4217")
    return code


Currency = Annotated[
    str,
    AfterValidator(_payable),
    Field(
        description="A currency code of ISO 4217.",
        examples=["EUR"],
        json_schema_extra={"enum": sorted(CURRENCIES)},
    ),
]
# No control characters: PostgreSQL takes no NUL, and no article number has the others.
Sku = Annotated[
    str,
    StringConstraints(min_length=1, max_length=domain.SKU_LENGTH_MAX, pattern=r"^[^\x00-\x1f\x7f]+$"),
    Field(examples=["TEA-250"]),
]
# What people write has lines and tabs, and no other control characters.
Note = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=domain.NOTE_LENGTH_MAX, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+$"
    ),
]


class NewLine(BaseModel):
    model_config = ConfigDict(extra="forbid", from_attributes=True)

    sku: Sku
    quantity: int = Field(strict=True, ge=1, le=domain.QUANTITY_MAX, examples=[2])
    unit_amount: int = Field(
        strict=True,
        ge=0,
        le=domain.UNIT_AMOUNT_MAX,
        description="In the currency's minor unit (cents for EUR).",
        examples=[1250],
    )


class NewOrder(BaseModel):
    """What somebody wants to buy."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "user_id": USER_ID,
                    "currency": "EUR",
                    "lines": [{"sku": "TEA-250", "quantity": 2, "unit_amount": 1250}],
                }
            ]
        },
    )

    user_id: UUID = Field(examples=[USER_ID])
    currency: Currency
    lines: list[NewLine] = Field(min_length=1, max_length=domain.LINES_MAX)
    note: Note | None = Field(
        default=None, description="What the buyer writes beside it.", examples=["Please ring twice."]
    )


class OrderView(BaseModel):
    """An order as the API shows it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(examples=[ORDER_ID])
    user_id: UUID = Field(examples=[USER_ID])
    status: OrderStatus
    currency: str = Field(examples=["EUR"])
    total_amount: int = Field(description="In the currency's minor unit.", examples=[2500])
    lines: list[NewLine]
    version: int = Field(description="1 when placed, 1 more with every change.", examples=[1])
    placed_at: datetime
    updated_at: datetime
    fraud_verdict: Verdict | None = Field(
        description="Null until the fraud service has judged the order, a moment after it is placed."
    )
    note: str | None = Field(description="What the buyer wrote beside it.", examples=["Please ring twice."])


class OrderPage(BaseModel):
    """Orders, newest first; `next_cursor` continues the list, null at its end."""

    items: list[OrderView]
    next_cursor: str | None = Field(examples=[pages.encode_cursor(ORDER_ID)])


def answer(status: int, order: Order, *, created: bool = False) -> Answer:
    return Answer(status, shown(order), f"/orders/{order.id}" if created else None)


def shown(order: Order) -> bytes:
    """An order as `OrderView` shows it, the same bytes in a seventh of the time: it is known to be valid."""
    view = {
        "id": str(order.id),
        "user_id": str(order.user_id),
        "status": order.status,
        "currency": order.currency,
        "total_amount": order.total_amount,
        "lines": order.lines,
        "version": order.version,
        "placed_at": order.placed_at,
        "updated_at": order.updated_at,
        "fraud_verdict": order.fraud_verdict,
        "note": order.note,
    }
    return orjson.dumps(view, option=orjson.OPT_UTC_Z)


def client_ip(request: Request) -> str | None:
    """Whom the request came from, as far as it is an IP address; behind a proxy here, whom that says."""
    return None if request.client is None else _ip_address(request.client.host)


@lru_cache(maxsize=1_024)
def _ip_address(host: str) -> str | None:
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        return None


def create_app(parts: Parts) -> FastAPI:
    """The order service's HTTP application, for a process with the role `api`."""
    app = service_app(
        title="Tandem order service",
        description="Takes orders of known users and tells the other services about them.",
        telemetry=parts.telemetry,
        errors=PROBLEMS,
        outbox_gate=parts.outbox_gate,
    )
    add_queries(app, parts)
    add_commands(app, parts)
    return app


def add_queries(app: FastAPI, parts: Parts) -> None:
    @app.get("/orders/{order_id}", responses=problem_responses(NOT_FOUND))
    async def get_order(order_id: UUID) -> OrderView:
        async with parts.units.begin() as uow:
            return OrderView.model_validate(await handlers.get_order(uow, order_id))

    @app.get("/orders")
    async def list_orders(
        user_id: UUID,
        cursor: Cursor = "",
        limit: PageSize = PAGE_SIZE,
    ) -> OrderPage:
        """A user's orders, newest first."""
        before = pages.decode_id(cursor) if cursor else None
        async with parts.units.begin() as uow:
            fetch = partial(handlers.list_orders, uow, user_id, before)
            orders, next_cursor = await page_of(fetch, limit, attrgetter("id"))
        return OrderPage(items=[OrderView.model_validate(order) for order in orders], next_cursor=next_cursor)


def add_commands(app: FastAPI, parts: Parts) -> None:
    units, users = parts.units, Users()
    change: dict[str, Any] = {
        "response_model": OrderView,
        "responses": problem_responses(NOT_FOUND, ILLEGAL, KEY_REUSED),
    }

    @app.post(
        "/orders",
        status_code=201,
        response_model=OrderView,
        responses=problem_responses(USER_NOT_KNOWN, USER_DEACTIVATED, KEY_REUSED),
    )
    async def place_order(new: NewOrder, request: Request, key: IdempotencyKey = None) -> Response:
        """Place an order; publishes `order.placed`."""
        lines = [Line(line.sku, line.quantity, line.unit_amount) for line in new.lines]

        async def work(uow: UnitOfWork) -> Answer:
            order = await handlers.place_order(
                uow,
                users,
                new.user_id,
                new.currency,
                lines,
                client_ip=client_ip(request),
                note=new.note,
            )
            return answer(201, order, created=True)

        for _ in range(_READS_MAX):
            try:
                return await answer_once(units, request, key, work)
            except IntegrityError as error:
                if not store.is_of_changed_user(error):
                    raise
                users.forget(new.user_id)
        raise UnavailableError(f"user {new.user_id} changes all the time")

    @app.post("/orders/{order_id}/pay", **change)
    async def pay_order(order_id: UUID, request: Request, key: IdempotencyKey = None) -> Response:
        """Pay an order that is placed; publishes `order.paid`."""

        async def work(uow: UnitOfWork) -> Answer:
            return answer(200, await handlers.pay_order(uow, order_id))

        return await answer_once(units, request, key, work)

    @app.post("/orders/{order_id}/cancel", **change)
    async def cancel_order(order_id: UUID, request: Request, key: IdempotencyKey = None) -> Response:
        """Cancel an order that is placed; publishes `order.cancelled`."""

        async def work(uow: UnitOfWork) -> Answer:
            return answer(200, await handlers.cancel_order(uow, order_id))

        return await answer_once(units, request, key, work)
