"""What an account is: a balance, and how much of it pending transfers hold.

Two accounts in each currency are the house's: *world*, from which money comes in and into which it leaves, and
*fees*. Whoever pays a fee touches one, so a balance kept in their rows would have everybody wait for everybody.
Nothing is ever decided by it: theirs is read as the sum of their postings, and kept as 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid5

from services.wallet.domain.limits import Limits
from services.wallet.domain.postings import BALANCE_MAX, Posting
from shared.errors import BusinessError

_HOUSE: Final = UUID("5d0f0f3c-6d0a-5c56-9f3e-4b7f2f0c7a11")


class AccountKind(StrEnum):
    """MEMBER accounts belong to a user; WORLD and FEES to the house, one of each in a currency.

    A DISTRIBUTION has one of its own, with its id, for what it holds while that is nobody's.
    """

    MEMBER = "member"
    DISTRIBUTION = "distribution"
    WORLD = "world"
    FEES = "fees"


class AccountNotFoundError(BusinessError):
    """No account has this id."""


class AccountNotSaidError(BusinessError):
    """The user has not just one account from which this could be: say which."""


class AccountFrozenError(BusinessError):
    """An administrator froze the account: nothing leaves it or comes in."""


class InsufficientFundsError(BusinessError):
    """More than is available; `available` is in the currency's minor unit."""

    def __init__(self, message: str, *, available: int) -> None:
        super().__init__(message)
        self.available = available


class BalanceTooLargeError(BusinessError):
    """The account would hold more than `BALANCE_MAX`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Amounts are in the minor unit of `currency`; 0 ≤ `held` ≤ `balance`. `limits` are without exceptions."""

    id: UUID
    kind: AccountKind
    currency: str
    user_id: UUID | None
    limits: Limits
    balance: int = 0
    held: int = 0
    frozen: bool = False

    @property
    def available(self) -> int:
        """What may be sent: the balance without what pending transfers hold."""
        return self.balance - self.held

    @property
    def keeps_balance(self) -> bool:
        return self.kind in {AccountKind.MEMBER, AccountKind.DISTRIBUTION}


def hold(account: Account, amount: int) -> Account:
    """The account with `amount` more held. Raises `InsufficientFundsError`."""
    if amount > account.available:
        raise InsufficientFundsError(
            f"account {account.id} has {account.available} available, not {amount}", available=account.available
        )
    return replace(account, held=account.held + amount)


def release(account: Account, amount: int) -> Account:
    """The account with `amount` less held."""
    assert 0 < amount <= account.held, "what is released was held"
    return replace(account, held=account.held - amount)


def post(account: Account, posting: Posting) -> Account:
    """The account after the posting. Raises `InsufficientFundsError` and `BalanceTooLargeError`."""
    assert (posting.account_id, posting.currency) == (account.id, account.currency), "a posting of this account"
    if not account.keeps_balance:
        return account
    if account.available + posting.amount < 0:
        raise InsufficientFundsError(
            f"account {account.id} has {account.available} available, not {-posting.amount}",
            available=account.available,
        )
    if account.balance + posting.amount > BALANCE_MAX:
        raise BalanceTooLargeError(f"account {account.id} would hold more than {BALANCE_MAX}")
    return replace(account, balance=account.balance + posting.amount)


def house_account_id(kind: AccountKind, currency: str) -> UUID:
    """The id of the house's account of this kind in this currency: the same wherever it is asked for."""
    assert kind in {AccountKind.WORLD, AccountKind.FEES}, "all others have an id of their own"
    return uuid5(_HOUSE, f"{kind.value}/{currency}")
