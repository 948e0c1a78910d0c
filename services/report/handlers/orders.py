"""What is kept of orders and of users, so that a report asks no other service."""

from __future__ import annotations

from datetime import UTC, datetime

from services.report import domain, store
from services.report.domain import OrderState
from services.report.events import (
    OrderCancelled,
    OrderEvent,
    OrderPaid,
    OrderPlaced,
    UserDeactivated,
    UserEvent,
    UserProfileUpdated,
    UserRegistered,
)
from shared.consuming import Handler, Subscriber
from shared.event import Event
from shared.publishing import UnitOfWork

NAME = "report"

_STATES: dict[type[OrderEvent], OrderState] = {
    OrderPlaced: "placed",
    OrderPaid: "paid",
    OrderCancelled: "cancelled",
}


async def on_order_event(event: Event[OrderEvent], uow: UnitOfWork) -> None:
    """Keep what the event says of the order; the day is that of its placing."""
    data, placed_on = event.data, None
    if isinstance(data, OrderPlaced):
        placed_on = domain.day_of(event.envelope.time, datetime.now(UTC))
    row = {
        "order_id": data.order_id,
        "currency": data.currency,
        "amount": data.total_amount,
        "state": _STATES[type(data)],
        "version": data.version,
        "placed_on": placed_on,
    }
    uow.tell(store.RECORD_ORDER, row)


async def on_user_event(event: Event[UserEvent], uow: UnitOfWork) -> None:
    """Keep the user's address."""
    data = event.data
    if data.email is not None:
        row = {"user_id": data.user_id, "email": data.email, "name": data.name, "version": data.version}
        uow.tell(store.RECORD_RECIPIENT, row)


SUBSCRIBERS = (
    Subscriber(channel="order", name=NAME, handlers=tuple(Handler(model, on_order_event) for model in _STATES)),
    Subscriber(
        channel="user",
        name=NAME,
        handlers=tuple(
            Handler(model, on_user_event) for model in (UserRegistered, UserProfileUpdated, UserDeactivated)
        ),
    ),
)
