"""One notification per event, and the list of them."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from services.notification import domain, store
from services.notification.domain import Text
from services.notification.events import (
    OrderCancelled,
    OrderEvent,
    OrderPaid,
    OrderPlaced,
    UserDeactivated,
    UserEvent,
    UserProfileUpdated,
    UserRegistered,
)
from services.notification.store import Notification
from shared.event import Event, Handler, Subscriber
from shared.uow import UnitOfWork

NAME = "notification"

DataT = TypeVar("DataT", bound=OrderEvent | UserEvent)


async def list_notifications(
    uow: UnitOfWork, user_id: UUID | None, order_id: UUID | None, before: int | None, page_size: int
) -> list[Notification]:
    """Newest first; none where nothing is known."""
    return await store.list_notifications(uow.connection, user_id, order_id, before, page_size)


async def on_order_placed(event: Event[OrderPlaced], uow: UnitOfWork) -> None:
    data = event.data
    _notify(event, uow, domain.order_placed(data.order_id, data.total_amount, data.currency))


async def on_order_paid(event: Event[OrderPaid], uow: UnitOfWork) -> None:
    data = event.data
    _notify(event, uow, domain.order_paid(data.order_id, data.total_amount, data.currency))


async def on_order_cancelled(event: Event[OrderCancelled], uow: UnitOfWork) -> None:
    data = event.data
    _notify(event, uow, domain.order_cancelled(data.order_id, data.total_amount, data.currency))


async def on_user_registered(event: Event[UserRegistered], uow: UnitOfWork) -> None:
    _notify(event, uow, domain.user_registered(event.data.name))


async def on_user_profile_updated(event: Event[UserProfileUpdated], uow: UnitOfWork) -> None:
    _notify(event, uow, domain.user_profile_updated(event.data.name))


async def on_user_deactivated(event: Event[UserDeactivated], uow: UnitOfWork) -> None:
    _notify(event, uow, domain.user_deactivated(event.data.name))


def _notify(event: Event[DataT], uow: UnitOfWork, text: Text) -> None:
    data = event.data
    uow.tell(
        store.INSERT_NOTIFICATION,
        {
            "id": uuid7(),
            "event_source": event.envelope.source,
            "event_id": event.id,
            "event_type": data.event_type,
            "user_id": data.user_id,
            "order_id": data.order_id if isinstance(data, OrderEvent) else None,
            "version": data.version,
            "title": text.title,
            "body": text.body,
        },
    )


SUBSCRIBERS = (
    Subscriber(
        channel="user",
        name=NAME,
        handlers=(
            Handler(UserRegistered, on_user_registered),
            Handler(UserProfileUpdated, on_user_profile_updated),
            Handler(UserDeactivated, on_user_deactivated),
        ),
    ),
    Subscriber(
        channel="order",
        name=NAME,
        handlers=(
            Handler(OrderPlaced, on_order_placed),
            Handler(OrderPaid, on_order_paid),
            Handler(OrderCancelled, on_order_cancelled),
        ),
    ),
)
