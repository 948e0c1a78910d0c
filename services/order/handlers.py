"""The use cases of the order service, and how it learns of users and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from services.order import domain, store
from services.order.domain import Line, Order, OrderNotFoundError
from services.order.events import (
    FraudOrderEvaluated,
    OrderCancelled,
    OrderPaid,
    OrderPlaced,
    UserDeactivated,
    UserEvent,
    UserProfileUpdated,
    UserRegistered,
)
from services.order.store import Users
from shared.consuming import Handler, Subscriber
from shared.event import Event
from shared.publishing import UnitOfWork

# -- use cases


async def place_order(
    uow: UnitOfWork,
    users: Users,
    user_id: UUID,
    currency: str,
    lines: Sequence[Line],
    *,
    client_ip: str | None = None,
    note: str | None = None,
) -> Order:
    """Place an order of a known user. Raises `UserNotKnownError` and `UserDeactivatedError`.

    When it is flushed it is refused (`store.is_of_changed_user`) if the user has changed since it was read.
    """
    user = await users.find(uow.reads, user_id)
    order = domain.place(uuid7(), user, currency, lines, datetime.now(UTC), note=note)
    uow.tell(store.INSERT_ORDER_OF_USER, store.inserted_of_user(order, user))
    uow.publish(OrderPlaced.of(order, client_ip), subject=str(order.id), link=user.traceparent)
    return order


async def get_order(uow: UnitOfWork, order_id: UUID) -> Order:
    """The order. Raises `OrderNotFoundError`."""
    return _found(await store.find_order(uow.reads, order_id), order_id)


async def list_orders(uow: UnitOfWork, user_id: UUID, before: UUID | None, page_size: int) -> list[Order]:
    """A user's orders, newest first; none for a user of whom nothing is known."""
    return await store.list_orders(uow.reads, user_id, before, page_size)


async def pay_order(uow: UnitOfWork, order_id: UUID) -> Order:
    """Pay an order that is placed. Raises `OrderNotFoundError` and `IllegalStateChangeError`."""
    order = _found(await store.find_order(uow.connection, order_id, lock=True), order_id)
    paid = domain.pay(order, datetime.now(UTC))
    uow.tell(store.UPDATE_ORDER, store.changed(paid))
    uow.publish(OrderPaid.of(paid), subject=str(order_id))
    return paid


async def cancel_order(uow: UnitOfWork, order_id: UUID) -> Order:
    """Cancel an order that is placed. Raises `OrderNotFoundError` and `IllegalStateChangeError`."""
    order = _found(await store.find_order(uow.connection, order_id, lock=True), order_id)
    cancelled = domain.cancel(order, datetime.now(UTC))
    uow.tell(store.UPDATE_ORDER, store.changed(cancelled))
    uow.publish(OrderCancelled.of(cancelled), subject=str(order_id))
    return cancelled


def _found(order: Order | None, order_id: UUID) -> Order:
    if order is None:
        raise OrderNotFoundError(f"order {order_id} does not exist")
    return order


# -- events


async def on_user_registered(event: Event[UserRegistered], uow: UnitOfWork) -> None:
    _record(event.data, event.envelope.traceparent, uow, active=True)


async def on_user_profile_updated(event: Event[UserProfileUpdated], uow: UnitOfWork) -> None:
    _record(event.data, event.envelope.traceparent, uow, active=True)


async def on_user_deactivated(event: Event[UserDeactivated], uow: UnitOfWork) -> None:
    _record(event.data, event.envelope.traceparent, uow, active=False)


def _record(user: UserEvent, traceparent: str | None, uow: UnitOfWork, *, active: bool) -> None:
    row = {"user_id": user.user_id, "active": active, "version": user.version, "traceparent": traceparent}
    uow.tell(store.RECORD_USER, row)


async def on_order_evaluated(event: Event[FraudOrderEvaluated], uow: UnitOfWork) -> None:
    uow.tell(store.RECORD_VERDICT, {"order_id": event.data.order_id, "verdict": event.data.verdict.value})


SUBSCRIBERS = (
    Subscriber(
        channel="user",
        name="order",
        handlers=(
            Handler(UserRegistered, on_user_registered),
            Handler(UserProfileUpdated, on_user_profile_updated),
            Handler(UserDeactivated, on_user_deactivated),
        ),
    ),
    Subscriber(channel="fraud", name="order", handlers=(Handler(FraudOrderEvaluated, on_order_evaluated),)),
)
