"""The events that this service publishes, and its own models of those of the user and fraud services.

`version` is the aggregate's: 1 for its first event, growing with each change.
"""

from __future__ import annotations

from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field

from services.order.domain import Order, Verdict
from shared.event import EventData

Version = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]

# -- published


class OrderLine(BaseModel):
    """`unit_amount` is in the currency's minor unit."""

    sku: str
    quantity: int
    unit_amount: int


class OrderEvent(EventData):
    """What all events of an order say. `total_amount` is in the currency's minor unit."""

    channel = "order"

    order_id: UUID
    user_id: UUID
    currency: str
    total_amount: int
    version: int

    @classmethod
    def of(cls, order: Order) -> Self:
        return cls(
            order_id=order.id,
            user_id=order.user_id,
            currency=order.currency,
            total_amount=order.total_amount,
            version=order.version,
        )


class OrderPlaced(OrderEvent):
    """`client_ip` is whom the request came from, None where that is not known; it is kept nowhere here.

    `note` is what the buyer wrote beside the order, if anything.
    """

    event_type = "order.placed"

    lines: tuple[OrderLine, ...]
    client_ip: str | None = None
    note: str | None = None

    @classmethod
    def of(cls, order: Order, client_ip: str | None = None) -> Self:
        return cls(
            order_id=order.id,
            user_id=order.user_id,
            currency=order.currency,
            total_amount=order.total_amount,
            version=order.version,
            lines=tuple(
                OrderLine(sku=line.sku, quantity=line.quantity, unit_amount=line.unit_amount)
                for line in order.lines
            ),
            client_ip=client_ip,
            note=order.note,
        )


class OrderPaid(OrderEvent):
    event_type = "order.paid"


class OrderCancelled(OrderEvent):
    event_type = "order.cancelled"


PUBLISHED: tuple[type[EventData], ...] = (OrderPlaced, OrderPaid, OrderCancelled)

# -- accepted


class UserEvent(EventData):
    """As much of a user's events as orders need."""

    channel = "user"

    user_id: UUID
    version: Version


class UserRegistered(UserEvent):
    event_type = "user.registered"


class UserProfileUpdated(UserEvent):
    event_type = "user.profile_updated"


class UserDeactivated(UserEvent):
    event_type = "user.deactivated"


class FraudOrderEvaluated(EventData):
    """As much of an order's evaluation as is shown with it."""

    channel = "fraud"
    event_type = "fraud.order_evaluated"

    order_id: UUID
    verdict: Verdict
