"""The use cases of accounts: types, opening, reading, adjusting, freezing."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from uuid_utils.compat import uuid7

from services.wallet.domain import accounts
from services.wallet.domain.accounts import Account, AccountKind, AccountNotFoundError, house_account_id
from services.wallet.domain.limits import AccountType
from services.wallet.domain.postings import Posting, balanced
from services.wallet.store import accounts as account_rows
from services.wallet.store import transfers as transfer_rows
from services.wallet.store.transfers import Entry
from shared.publishing import UnitOfWork


def record_account_type(uow: UnitOfWork, offered: AccountType) -> None:
    """Offer this type of account, or give the type that has its name these limits."""
    limits = offered.limits
    row = {"name": offered.name, "limit_one_time": limits.one_time, "limit_daily": limits.daily}
    uow.tell(account_rows.RECORD_ACCOUNT_TYPE, row)


def open_account(uow: UnitOfWork, user_id: UUID, account_type: str, currency: str) -> UUID:
    """Open an account of a type that is offered, and the house's in this currency where there are none."""
    for kind in (AccountKind.WORLD, AccountKind.FEES):
        row = {"id": house_account_id(kind, currency), "kind": kind.value, "currency": currency}
        uow.tell(account_rows.INSERT_ACCOUNT_IF_NEW, row)
    account_id = uuid7()
    uow.tell(
        account_rows.INSERT_ACCOUNT,
        {
            "id": account_id,
            "kind": AccountKind.MEMBER.value,
            "currency": currency,
            "user_id": user_id,
            "type": account_type,
        },
    )
    return account_id


async def get_account(uow: UnitOfWork, account_id: UUID, *, owner: UUID | None = None) -> Account:
    """The account as it is now, of the user `owner` or, with None, whoever's.

    Raises `AccountNotFoundError`, also for an account of the house.
    """
    found = await account_rows.find_accounts(uow.reads, [account_id])
    return member_account(found, account_id, owner)


async def list_accounts(uow: UnitOfWork, user_id: UUID) -> list[Account]:
    """A user's accounts, the oldest first, at most a thousand."""
    return await account_rows.list_accounts(uow.reads, user_id)


async def list_entries(uow: UnitOfWork, account_id: UUID, before: int | None, page_size: int) -> list[Entry]:
    """What changed an account's balance, newest first; none for an account that there is not."""
    return await transfer_rows.list_entries(uow.reads, account_id, before, page_size)


async def adjust(uow: UnitOfWork, account_id: UUID, amount: int, reason: str, made_by: str) -> Account:
    """Have money come into an account from outside, or leave it where `amount` is negative.

    Raises `AccountNotFoundError`, `InsufficientFundsError` and `BalanceTooLargeError`.
    """
    account = await lock_account(uow, account_id)
    world = house_account_id(AccountKind.WORLD, account.currency)
    made = balanced([Posting(account_id, account.currency, amount), Posting(world, account.currency, -amount)])
    after, movement_id = accounts.post(account, made[0]), uuid7()
    row = {"id": movement_id, "account_id": account_id, "amount": amount, "reason": reason, "made_by": made_by}
    uow.tell(account_rows.INSERT_ADJUSTMENT, row)
    for posting in made:
        uow.tell(transfer_rows.INSERT_POSTING, transfer_rows.posted(movement_id, posting))
    uow.tell(account_rows.CHANGE_ACCOUNT, change(account_id, balance=amount))
    return after


async def freeze(uow: UnitOfWork, account_id: UUID, *, frozen: bool) -> Account:
    """Freeze an account, or thaw it. Raises `AccountNotFoundError`."""
    account = await lock_account(uow, account_id)
    uow.tell(account_rows.FREEZE_ACCOUNT, {"account_id": account_id, "new_frozen": frozen})
    return replace(account, frozen=frozen)


async def lock_account(uow: UnitOfWork, account_id: UUID) -> Account:
    """Whoever's account, locked until the transaction ends. Raises `AccountNotFoundError`."""
    return member_account(await account_rows.lock_accounts(uow.connection, [account_id]), account_id)


def member_account(found: dict[UUID, Account], account_id: UUID, owner: UUID | None = None) -> Account:
    """What was looked for. Raises `AccountNotFoundError`, also for the house's and another's than `owner`'s."""
    account = found.get(account_id)
    if account is None or account.kind is not AccountKind.MEMBER or owner not in (None, account.user_id):
        raise AccountNotFoundError(f"account {account_id} does not exist")
    return account


def change(account_id: UUID, *, balance: int = 0, held: int = 0) -> dict[str, object]:
    """The row for `CHANGE_ACCOUNT`: what comes on top."""
    return {"account_id": account_id, "more_balance": balance, "more_held": held}
