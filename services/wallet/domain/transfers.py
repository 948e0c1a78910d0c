"""A transfer in two phases: accepted, its total held under the sender; then completed, failed or cancelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from services.wallet.domain.accounts import Account, AccountFrozenError, AccountKind, hold, post, release
from services.wallet.domain.limits import day_of
from services.wallet.domain.postings import BALANCE_MAX, Posting, balanced
from services.wallet.domain.quotes import Quote, Sender, require_allowed
from shared.errors import BusinessError

LABEL_LENGTH_MAX: Final = 100


class TransferStatus(StrEnum):
    """PENDING → COMPLETED, FAILED or CANCELLED; all three are final."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class FailureReason(StrEnum):
    """Why a transfer failed that was accepted. That funds are missing is none: they are held."""

    SENDER_FROZEN = "sender_frozen"
    RECEIVER_FROZEN = "receiver_frozen"
    RECEIVER_FULL = "receiver_full"


class TransferNotFoundError(BusinessError):
    """No transfer has this id."""


class TransferEndedError(BusinessError):
    """The transfer is completed, failed or cancelled already."""


class ReceiverError(BusinessError):
    """Nothing can be sent there: the sender's own account, another currency, an account of the house.

    `why` says which, for a person: `it is the house's own`.
    """

    def __init__(self, message: str, *, why: str) -> None:
        super().__init__(message)
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """`amount` goes to the receiver and `fee` to the house, in the minor unit of `currency`; `day` is Seoul's."""

    id: UUID
    sender_id: UUID
    receiver_id: UUID
    user_id: UUID
    """The sender's: whose limits and free transfers it uses up."""
    currency: str
    amount: int
    fee: int
    free: bool
    sender_label: str
    receiver_label: str
    day: date
    status: TransferStatus
    reason: FailureReason | None
    requested_at: datetime
    ended_at: datetime | None

    @property
    def total(self) -> int:
        """What is held while it is pending, and leaves the sender when it completes."""
        return self.amount + self.fee


@dataclass(frozen=True, slots=True)
class Labels:
    """What sender and receiver read beside the amount in their entries."""

    sender: str
    receiver: str


@dataclass(frozen=True, slots=True)
class Ending:
    """A transfer after its end, the accounts that it changed, and the postings that changed them."""

    transfer: Transfer
    accounts: tuple[Account, ...]
    postings: tuple[Posting, ...] = ()


def accept(
    transfer_id: UUID,
    sender: Sender,
    receiver: Account,
    quoted: Quote,
    *,
    labels: Labels,
    now: datetime,
) -> tuple[Transfer, Account]:
    """The pending transfer, and the sender's account with its total held.

    Raises `ReceiverError`, `AccountFrozenError` and what `require_allowed` raises.
    """
    account = sender.account
    _require_receiver(account, receiver)
    require_allowed(sender, quoted)
    if receiver.frozen:
        raise AccountFrozenError(f"account {receiver.id} is frozen")
    transfer = Transfer(
        id=transfer_id,
        sender_id=account.id,
        receiver_id=receiver.id,
        user_id=sender.member.user_id,
        currency=account.currency,
        amount=quoted.amount,
        fee=quoted.fee,
        free=quoted.free,
        sender_label=labels.sender,
        receiver_label=labels.receiver,
        day=day_of(now),
        status=TransferStatus.PENDING,
        reason=None,
        requested_at=now,
        ended_at=None,
    )
    return transfer, hold(account, transfer.total)


def _require_receiver(sender: Account, receiver: Account) -> None:
    if receiver.id == sender.id:
        raise ReceiverError(f"account {sender.id} sends nothing to itself", why="it is the account that sends")
    if receiver.kind is not AccountKind.MEMBER:
        raise ReceiverError(f"account {receiver.id} is the house's", why="it is the house's own")
    if receiver.currency != sender.currency:
        message = f"account {receiver.id} is in {receiver.currency}, not in {sender.currency}"
        raise ReceiverError(message, why=f"it is in {receiver.currency}, not in {sender.currency}")


def execute(transfer: Transfer, accounts: Mapping[UUID, Account], fees_id: UUID, now: datetime) -> Ending:
    """The end of a pending transfer: completed, or failed with a reason. The hold is released either way.

    `accounts` has at least the sender's and the receiver's, as they are now; `fees_id` is the house's account for
    fees in this currency. Raises `TransferEndedError`.
    """
    _require_pending(transfer)
    sender = release(accounts[transfer.sender_id], transfer.total)
    receiver = accounts[transfer.receiver_id]
    reason = _failure(sender, receiver, transfer.amount)
    if reason is not None:
        failed = replace(transfer, status=TransferStatus.FAILED, reason=reason, ended_at=now)
        return Ending(failed, (sender,))
    postings = postings_of(transfer, fees_id)
    completed = replace(transfer, status=TransferStatus.COMPLETED, ended_at=now)
    return Ending(completed, (post(sender, postings[0]), post(receiver, postings[1])), postings)


def postings_of(transfer: Transfer, fees_id: UUID) -> tuple[Posting, ...]:
    """What a completed transfer posts: the sender's first, then the receiver's, then the fee's if there is one."""
    moves = [(transfer.sender_id, -transfer.total), (transfer.receiver_id, transfer.amount)]
    if transfer.fee:
        moves.append((fees_id, transfer.fee))
    return balanced(Posting(account_id, transfer.currency, amount) for account_id, amount in moves)


def cancel(transfer: Transfer, sender: Account, now: datetime) -> Ending:
    """The transfer taken back while it is pending, its hold released. Raises `TransferEndedError`."""
    _require_pending(transfer)
    cancelled = replace(transfer, status=TransferStatus.CANCELLED, ended_at=now)
    return Ending(cancelled, (release(sender, transfer.total),))


def _require_pending(transfer: Transfer) -> None:
    if transfer.status is not TransferStatus.PENDING:
        raise TransferEndedError(f"transfer {transfer.id} is {transfer.status.value} already")


def _failure(sender: Account, receiver: Account, amount: int) -> FailureReason | None:
    if sender.frozen:
        return FailureReason.SENDER_FROZEN
    if receiver.frozen:
        return FailureReason.RECEIVER_FROZEN
    return FailureReason.RECEIVER_FULL if receiver.balance + amount > BALANCE_MAX else None
