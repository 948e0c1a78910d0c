"""A receipt: that a user asked for a share of a distribution, until when it may be begun, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from services.wallet.domain.accounts import Account, AccountFrozenError, BalanceTooLargeError, post
from services.wallet.domain.distributions import (
    AlreadyReceivedError,
    Distribution,
    DistributionClosedError,
    NothingLeftError,
    Share,
    receive,
)
from services.wallet.domain.postings import Posting, balanced
from shared.errors import BusinessError

ANSWER_WITHIN: Final = timedelta(seconds=10)
"""Whoever asks has an answer by then, if only that there is none yet."""
BEGIN_WITHIN: Final = timedelta(seconds=8)
"""What is not begun by then is never begun."""
KEPT_FOR: Final = timedelta(days=7)
"""So long a receipt is kept that came to nothing; one of money, for ever."""


class ReceiptStatus(StrEnum):
    """ASKED → RECEIVED, REFUSED or NOT_BEGUN; all three are final."""

    ASKED = "asked"
    RECEIVED = "received"
    REFUSED = "refused"
    NOT_BEGUN = "not_begun"


class Refusal(StrEnum):
    """Why there was no share for somebody for whom, when asking, there seemed to be one."""

    NOTHING_LEFT = "nothing_left"
    OVER = "over"
    RECEIVED_ALREADY = "received_already"
    ACCOUNT_FROZEN = "account_frozen"
    ACCOUNT_FULL = "account_full"


class ReceiptNotFoundError(BusinessError):
    """No receipt has this id, or it is another's."""


class ReceiptKeyReusedError(BusinessError):
    """The key for which there is a receipt was used with another request."""


REFUSALS: Final[Mapping[type[BusinessError], Refusal]] = {
    NothingLeftError: Refusal.NOTHING_LEFT,
    DistributionClosedError: Refusal.OVER,
    AlreadyReceivedError: Refusal.RECEIVED_ALREADY,
    AccountFrozenError: Refusal.ACCOUNT_FROZEN,
    BalanceTooLargeError: Refusal.ACCOUNT_FULL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A share that the user wants; without `account_id`, into the oldest account of its currency."""

    user_id: UUID
    room_id: str
    token: str
    account_id: UUID | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """`amount`, in the minor unit of `currency`, is 0 until it is received. `account_id` is where it goes.

    `key` is the Idempotency-Key with which it was asked for. Times are by the database's clock.
    """

    id: UUID
    user_id: UUID
    room_id: str
    token: str
    distribution_id: UUID
    account_id: UUID
    currency: str
    key: str | None
    asked_at: datetime
    begin_by: datetime
    status: ReceiptStatus = ReceiptStatus.ASKED
    reason: Refusal | None = None
    amount: int = 0
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a receipt: the share that was taken, if one was, and what that changed."""

    receipt: Receipt
    distribution: Distribution
    share: Share | None = None
    accounts: tuple[Account, ...] = ()
    postings: tuple[Posting, ...] = ()


def take(receipt: Receipt, distribution: Distribution, accounts: Mapping[UUID, Account], now: datetime) -> Outcome:
    """The outcome of a receipt that is asked: received, refused with a reason, or not begun in time.

    `accounts` has at least the distribution's and the receiver's, as they are now.
    """
    assert receipt.status is ReceiptStatus.ASKED, "a receipt ends once"
    if now > receipt.begin_by:
        return Outcome(replace(receipt, status=ReceiptStatus.NOT_BEGUN, ended_at=now), distribution)
    try:
        after, share = receive(distribution, receipt.user_id, receipt.room_id, now)
        changed, postings = _move(accounts[distribution.id], accounts[receipt.account_id], share.amount)
    except tuple(REFUSALS) as error:
        refused = replace(receipt, status=ReceiptStatus.REFUSED, reason=REFUSALS[type(error)], ended_at=now)
        return Outcome(refused, distribution)
    if changed[0].balance == 0:
        after = replace(after, closed_at=now)
    received = replace(receipt, status=ReceiptStatus.RECEIVED, amount=share.amount, ended_at=now)
    return Outcome(received, after, share, changed, postings)


def _move(giver: Account, receiver: Account, amount: int) -> tuple[tuple[Account, Account], tuple[Posting, ...]]:
    """Raises `AccountFrozenError` and `BalanceTooLargeError` of the receiver's."""
    if receiver.frozen:
        raise AccountFrozenError(f"account {receiver.id} is frozen")
    moves = ((giver, -amount), (receiver, amount))
    postings = balanced(Posting(account.id, account.currency, moved) for account, moved in moves)
    return (post(giver, postings[0]), post(receiver, postings[1])), postings
