"""A quote: what a transfer would cost, and what limits and free transfers leave of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from services.wallet.domain.accounts import Account, AccountFrozenError, InsufficientFundsError
from services.wallet.domain.fees import FeeRules
from services.wallet.domain.limits import LimitException, Member, Usage, limits_at
from services.wallet.domain.postings import AMOUNT_MAX
from shared.errors import BusinessError


class LimitExceededError(BusinessError):
    """More than a limit leaves: `left`, in the currency's minor unit. `what` it limits: `in one transfer`."""

    def __init__(self, message: str, *, left: int, what: str) -> None:
        super().__init__(message)
        self.left = left
        self.what = what


class FeeChangedError(BusinessError):
    """The transfer would cost another fee than was agreed to."""


class MemberInactiveError(BusinessError):
    """The user is deactivated, and sends nothing any more."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends: an account, the member whose it is, what both sent today, and exceptions from the limits."""

    account: Account
    member: Member
    usage: Usage = field(default_factory=Usage)
    exceptions: tuple[LimitException, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What sending `amount` would cost now. What is left is so before this transfer; amounts are minor units."""

    amount: int
    fee: int
    free: bool
    """Without a fee only because it is one of the day's free transfers: it uses one up."""
    available: int
    one_time_limit: int
    left_today: int
    left_of_total: int | None
    free_left: int

    @property
    def total(self) -> int:
        """What leaves the sender's account."""
        return self.amount + self.fee


def quote(sender: Sender, amount: int, fees: FeeRules, now: datetime) -> Quote:
    """The quote for sending `amount` at `now`."""
    assert 0 < amount <= AMOUNT_MAX, "checked where it came in"
    account, member, usage = sender.account, sender.member, sender.usage
    limits = limits_at(account.limits, sender.exceptions, now)
    fee = fees.fee_of(amount)
    free_left = max(0, member.free_transfers - usage.free_transfers)
    free = fee > 0 and free_left > 0
    total = member.limit_total
    return Quote(
        amount=amount,
        fee=0 if free else fee,
        free=free,
        available=account.available,
        one_time_limit=limits.one_time,
        left_today=max(0, limits.daily - usage.sent_by_account),
        left_of_total=None if total is None else max(0, total - usage.sent_by_user),
        free_left=free_left,
    )


def require_agreed(quoted: Quote, agreed_fee: int | None) -> None:
    """Nothing, where the fee is the one that was agreed to, or none was. Raises `FeeChangedError`."""
    if agreed_fee not in {None, quoted.fee}:
        raise FeeChangedError(f"the fee is {quoted.fee} now, not {agreed_fee}")


def require_allowed(sender: Sender, quoted: Quote) -> None:
    """Nothing, where the transfer may be sent.

    Raises `MemberInactiveError`, `AccountFrozenError`, `LimitExceededError`, `InsufficientFundsError`.
    """
    if not sender.member.active:
        raise MemberInactiveError(f"user {sender.member.user_id} is deactivated")
    if sender.account.frozen:
        raise AccountFrozenError(f"account {sender.account.id} is frozen")
    left = {
        "in one transfer": quoted.one_time_limit,
        "from this account today": quoted.left_today,
        "from all accounts today": quoted.left_of_total,
    }
    for what, most in left.items():
        if most is not None and quoted.amount > most:
            raise LimitExceededError(f"{most} may be sent {what}, not {quoted.amount}", left=most, what=what)
    if quoted.total > quoted.available:
        raise InsufficientFundsError(
            f"account {sender.account.id} has {quoted.available} available, not {quoted.total}",
            available=quoted.available,
        )
