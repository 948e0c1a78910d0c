"""The event that this service publishes, and its own models of those that it accepts.

What it accepts is bounded: what PostgreSQL could not store is refused here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field

from services.fraud.domain import Verdict, written_ip
from shared.event import EventData
from shared.jobs import StepReady

Version = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
Amount = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Email = Annotated[str, Field(max_length=254, pattern=r"^[^\x00]*$")]
ClientIp = Annotated[str | None, BeforeValidator(written_ip)]
"""What is no IP address counts as none: it is no reason not to judge an order."""

# -- published


class Reason(BaseModel):
    """A rule that applied, its points, and in a sentence why."""

    rule: str
    points: int
    said: str


class FraudOrderEvaluated(EventData):
    """`score` is from 0 to 100, the sum of the reasons' points or 100."""

    channel = "fraud"
    event_type = "fraud.order_evaluated"

    order_id: UUID
    user_id: UUID
    verdict: Verdict
    score: int
    reasons: tuple[Reason, ...]
    evaluated_at: datetime


PUBLISHED: tuple[type[EventData], ...] = (FraudOrderEvaluated,)


class FraudStepReady(StepReady):
    """Nobody ever publishes it: all steps are leased, and what is leased is not announced over the broker."""

    channel = "fraud"
    event_type = "fraud.step_ready"


# -- accepted


class OrderEvent(EventData):
    """`total_amount` is in the currency's minor unit."""

    channel = "order"

    order_id: UUID
    user_id: UUID
    currency: Currency
    total_amount: Amount


class OrderPlaced(OrderEvent):
    event_type = "order.placed"

    client_ip: ClientIp = None


class OrderPaid(OrderEvent):
    event_type = "order.paid"


class OrderCancelled(OrderEvent):
    event_type = "order.cancelled"


class UserEvent(EventData):
    channel = "user"

    user_id: UUID
    email: Email | None = None
    version: Version


class UserRegistered(UserEvent):
    event_type = "user.registered"


class UserProfileUpdated(UserEvent):
    event_type = "user.profile_updated"


class UserDeactivated(UserEvent):
    event_type = "user.deactivated"
