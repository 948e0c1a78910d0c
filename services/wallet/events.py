"""The events that this service publishes, one of which it accepts itself, and its own models of a user's."""

from __future__ import annotations

from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field

from services.wallet.domain.distributions import Distribution
from services.wallet.domain.transfers import Transfer, TransferStatus
from shared.event import EventData

Version = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]

# -- published


class TransferEvent(EventData):
    """What all events of a transfer say. Amounts are in the currency's minor unit.

    `version` is the transfer's: 1 when it is requested, 2 when it has ended.
    """

    channel = "transfer"

    transfer_id: UUID
    sender_id: UUID
    receiver_id: UUID
    user_id: UUID
    """Whom it concerns: the sender's user, but where an event says otherwise."""
    currency: str
    amount: int
    fee: int
    version: int

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
            version=1 if transfer.status is TransferStatus.PENDING else 2,
        )


class TransferRequested(TransferEvent):
    """It is accepted and its total held; whoever reads this executes it."""

    event_type = "transfer.requested"


class TransferCompleted(TransferEvent):
    event_type = "transfer.completed"


class TransferReceived(TransferEvent):
    """Said beside `transfer.completed` where the receiver is somebody else: `user_id` is the receiver's user."""

    event_type = "transfer.received"

    @classmethod
    def by(cls, transfer: Transfer, receiver: UUID) -> Self:
        """The event for the user `receiver`."""
        return cls(**{**TransferCompleted.of(transfer).model_dump(), "user_id": receiver})


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


class DistributionClosed(EventData):
    """Every share of a distribution is taken, or its time is over and the rest went back to the giver.

    Amounts are in the currency's minor unit; `user_id` is the giver. On the channel of transfers: money moved.
    """

    channel = "transfer"
    event_type = "distribution.closed"

    distribution_id: UUID
    user_id: UUID
    account_id: UUID
    currency: str
    amount: int
    people: int
    given_back: int
    version: int = 2

    @classmethod
    def of(cls, closed: Distribution) -> Self:
        return cls(
            distribution_id=closed.id,
            user_id=closed.giver_id,
            account_id=closed.account_id,
            currency=closed.currency,
            amount=closed.amount,
            people=closed.people,
            given_back=closed.given_back,
        )


class ShareAsked(EventData):
    """A request: decide this receipt, and answer when that is committed. Nothing is in it that could be forged."""

    channel = "share"
    event_type = "share.asked"

    receipt_id: UUID


class ShareAnswered(BaseModel):
    """The answer: the receipt has ended. How, its row says."""

    receipt_id: UUID


PUBLISHED: tuple[type[EventData], ...] = (
    TransferRequested,
    TransferCompleted,
    TransferReceived,
    TransferFailed,
    TransferCancelled,
    DistributionClosed,
    ShareAsked,
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
