"""The events that this service publishes, one of which it accepts itself, and its own models of a user's."""

from __future__ import annotations

from typing import Annotated, Self
from uuid import UUID

from pydantic import Field

from services.wallet.domain.transfers import Transfer
from shared.event import EventData

Version = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]

# -- published


class TransferEvent(EventData):
    """What all events of a transfer say. Amounts are in the currency's minor unit."""

    channel = "transfer"

    transfer_id: UUID
    sender_id: UUID
    receiver_id: UUID
    user_id: UUID
    """The sender's."""
    currency: str
    amount: int
    fee: int

    @classmethod
    def of(cls, transfer: Transfer) -> Self:
        return cls(
            transfer_id=transfer.id,
            sender_id=transfer.sender_id,
            receiver_id=transfer.receiver_id,
            user_id=transfer.user_id,
            currency=transfer.currency,
            amount=transfer.amount,
            fee=transfer.fee,
        )


class TransferRequested(TransferEvent):
    """It is accepted and its total held; whoever reads this executes it."""

    event_type = "transfer.requested"


class TransferCompleted(TransferEvent):
    event_type = "transfer.completed"


class TransferFailed(TransferEvent):
    """`reason` is a `FailureReason`."""

    event_type = "transfer.failed"

    reason: str

    @classmethod
    def of(cls, transfer: Transfer) -> Self:
        assert transfer.reason is not None, "a failed transfer has a reason"
        told = TransferCompleted.of(transfer).model_dump()
        return cls(**told, reason=transfer.reason.value)


class TransferCancelled(TransferEvent):
    event_type = "transfer.cancelled"


PUBLISHED: tuple[type[EventData], ...] = (
    TransferRequested,
    TransferCompleted,
    TransferFailed,
    TransferCancelled,
)

# -- accepted


class UserEvent(EventData):
    """As much of a user's events as the wallet needs."""

    channel = "user"

    user_id: UUID
    version: Version


class UserRegistered(UserEvent):
    event_type = "user.registered"


class UserProfileUpdated(UserEvent):
    event_type = "user.profile_updated"


class UserDeactivated(UserEvent):
    event_type = "user.deactivated"
