"""What an order is and what may happen to one. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from shared.errors import BusinessError

LINES_MAX: Final = 100
QUANTITY_MAX: Final = 1_000
UNIT_AMOUNT_MAX: Final = 1_000_000_000
SKU_LENGTH_MAX: Final = 64
NOTE_LENGTH_MAX: Final = 16_384
"""Characters."""
# The largest total has 15 digits: exact in a bigint, and in the doubles that JSON readers use.
assert LINES_MAX * QUANTITY_MAX * UNIT_AMOUNT_MAX < 2**53


class OrderStatus(StrEnum):
    """PLACED → PAID or PLACED → CANCELLED; both are final."""

    PLACED = "placed"
    PAID = "paid"
    CANCELLED = "cancelled"


class Verdict(StrEnum):
    """What the fraud service says of an order. It is shown, and nothing follows from it by itself."""

    APPROVE = "approve"
    REVIEW = "review"
    REJECT = "reject"


class OrderNotFoundError(BusinessError):
    """No order has this id."""


class IllegalStateChangeError(BusinessError):
    """The order is in a state that does not allow this."""


class UserNotKnownError(BusinessError):
    """Nothing was heard of this user, or not yet: events take a moment."""


class UserDeactivatedError(BusinessError):
    """The user may not place orders any more."""


@dataclass(frozen=True, slots=True)
class KnownUser:
    """As much of a user as orders need; `traceparent` is the trace context of the event that told it."""

    user_id: UUID
    active: bool
    version: int
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """One article of an order; `unit_amount` is in the currency's minor unit."""

    sku: str
    quantity: int
    unit_amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a user buys.

    `total_amount` is in the currency's minor unit; `version` is 1 when placed and grows with every change.
    `fraud_verdict` is None until the order was judged, a moment after it is placed; it is no change of the order.
    `note` is what the buyer wrote beside it, if anything.
    """

    id: UUID
    user_id: UUID
    currency: str
    lines: tuple[Line, ...]
    total_amount: int
    status: OrderStatus
    version: int
    placed_at: datetime
    updated_at: datetime
    fraud_verdict: Verdict | None = None
    note: str | None = None


def require_known(user: KnownUser | None, user_id: UUID) -> KnownUser:
    """The user, who may place orders. Raises `UserNotKnownError` and `UserDeactivatedError`."""
    if user is None:
        raise UserNotKnownError(f"user {user_id} is not known here, or not yet")
    if not user.active:
        raise UserDeactivatedError(f"user {user_id} is deactivated")
    return user


def place(
    order_id: UUID,
    user: KnownUser,
    currency: str,
    lines: Sequence[Line],
    now: datetime,
    *,
    note: str | None = None,
) -> Order:
    return Order(
        id=order_id,
        user_id=user.user_id,
        currency=currency,
        lines=tuple(lines),
        total_amount=sum(line.quantity * line.unit_amount for line in lines),
        status=OrderStatus.PLACED,
        version=1,
        placed_at=now,
        updated_at=now,
        note=note,
    )


def pay(order: Order, now: datetime) -> Order:
    """The order after it was paid. Raises `IllegalStateChangeError` unless it is just placed."""
    return _close(order, OrderStatus.PAID, now)


def cancel(order: Order, now: datetime) -> Order:
    """The order after it was cancelled. Raises `IllegalStateChangeError` unless it is just placed."""
    return _close(order, OrderStatus.CANCELLED, now)


def _close(order: Order, status: OrderStatus, now: datetime) -> Order:
    if order.status is not OrderStatus.PLACED:
        raise IllegalStateChangeError(f"order {order.id} is {order.status.value} and cannot become {status.value}")
    return replace(order, status=status, version=order.version + 1, updated_at=now)
