"""What members read: amounts, accounts and times, and the wallet's refusals in plain sentences."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from services.wallet.domain.accounts import (
    Account,
    AccountFrozenError,
    AccountNotFoundError,
    InsufficientFundsError,
)
from services.wallet.domain.limits import DAY_ZONE
from services.wallet.domain.quotes import FeeChangedError, LimitExceededError, MemberInactiveError
from services.wallet.domain.transfers import FailureReason, ReceiverError
from shared.http.idempotency import KeyReusedError
from shared.money import format_amount

REFUSALS: Final = (
    AccountFrozenError,
    AccountNotFoundError,
    FeeChangedError,
    InsufficientFundsError,
    KeyReusedError,
    LimitExceededError,
    MemberInactiveError,
    ReceiverError,
)
"""What asking for a transfer may raise."""
WHY_IT_FAILED: Final = {
    FailureReason.SENDER_FROZEN: "your account is frozen",
    FailureReason.RECEIVER_FROZEN: "the receiver's account is frozen",
    FailureReason.RECEIVER_FULL: "the receiver's account would hold too much",
}


def money(amount: int, currency: str) -> str:
    """An amount with its currency: `125000, "EUR"` → `1,250.00 EUR`, the space one that is not broken at."""
    return f"{format_amount(amount, currency, thousands=',')}\N{NO-BREAK SPACE}{currency}"


def short(account_id: UUID) -> str:
    """The end of an account's id, by which people tell a few of them apart; no line is broken in it."""
    return f"\N{HORIZONTAL ELLIPSIS}\N{WORD JOINER}{str(account_id)[-8:]}"


def moment(time: datetime) -> str:
    """A time of Asia/Seoul: `29 Nov 2026, 08:45`."""
    there = time.astimezone(ZoneInfo(DAY_ZONE))
    return f"{there.day} {there:%b %Y, %H:%M}"


def refusal(error: Exception, sender: Account) -> tuple[str, str]:
    """Beside which field one of the `REFUSALS` is told, or `form` where it is none's; and its sentence."""
    field = "form"
    match error:
        case InsufficientFundsError(available=available):
            left = money(available, sender.currency)
            field, told = "amount", f"Not enough: {left} is available, and has to pay the fee too."
        case LimitExceededError(left=left_over, what=what):
            left = money(left_over, sender.currency) if left_over else "Nothing more"
            field, told = "amount", f"{left} may be sent {what}; this is more than that limit."
        case ReceiverError(why=why):
            field, told = "receiver_id", f"Nothing can be sent there: {why}."
        case AccountNotFoundError():
            field, told = "receiver_id", "There is no such account. Compare it with what the receiver gave you."
        case AccountFrozenError() if sender.frozen:
            field, told = "sender_id", "This account is frozen: nothing leaves it until it is thawed."
        case AccountFrozenError():
            field, told = "receiver_id", "The receiver's account is frozen: nothing can be sent there now."
        case MemberInactiveError():
            told = "You cannot send anything: your membership is not active, or not yet."
        case FeeChangedError():
            told = "The fee has changed since you were asked. Look at it, and send again."
        case _:
            told = "This was sent already with other details. Look at your entries before you send again."
    return field, told
