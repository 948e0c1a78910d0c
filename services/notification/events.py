"""This service's own models of the events that it accepts. It publishes none.

They ask for no more than a notification needs, and bound it: what PostgreSQL could not store is refused here.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field

from shared.event import EventData
from shared.jobs import StepReady

Version = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
Amount = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Email = Annotated[str, Field(min_length=3, max_length=254, pattern=r"^[^\x00-\x20\x7f@]+@[^\x00-\x20\x7f@]+$")]
Name = Annotated[str, Field(min_length=1, max_length=1_000, pattern=r"^[^\x00]+$")]


class OrderEvent(EventData):
    """`total_amount` is in the currency's minor unit."""

    channel = "order"

    order_id: UUID
    user_id: UUID
    currency: Currency
    total_amount: Amount
    version: Version


class OrderPlaced(OrderEvent):
    event_type = "order.placed"


class OrderPaid(OrderEvent):
    event_type = "order.paid"


class OrderCancelled(OrderEvent):
    event_type = "order.cancelled"


class UserEvent(EventData):
    channel = "user"

    user_id: UUID
    email: Email | None = None
    name: Name
    version: Version


class UserRegistered(UserEvent):
    event_type = "user.registered"


class UserProfileUpdated(UserEvent):
    event_type = "user.profile_updated"


class UserDeactivated(UserEvent):
    event_type = "user.deactivated"


class TransferEvent(EventData):
    """Whom it tells is `user_id`; `amount` and `fee` are in the currency's minor unit."""

    channel = "transfer"

    sender_id: UUID
    receiver_id: UUID
    user_id: UUID
    currency: Currency
    amount: Amount
    fee: Amount
    version: Version


class TransferCompleted(TransferEvent):
    event_type = "transfer.completed"


class TransferReceived(TransferEvent):
    event_type = "transfer.received"


class TransferFailed(TransferEvent):
    event_type = "transfer.failed"

    reason: Annotated[str, Field(max_length=100)]


class TransferCancelled(TransferEvent):
    event_type = "transfer.cancelled"


class DistributionClosed(EventData):
    """`user_id` is who gave; amounts are in the currency's minor unit."""

    channel = "transfer"
    event_type = "distribution.closed"

    user_id: UUID
    currency: Currency
    amount: Amount
    given_back: Amount
    version: Version


class NotificationStepReady(StepReady):
    """Nobody ever publishes it: all steps are leased, and what is leased is not announced over the broker."""

    channel = "notification"
    event_type = "notification.step_ready"
