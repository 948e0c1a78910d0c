"""The use cases of administrators. Each act is recorded with who and why, in the transaction that does it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from services.wallet.domain.accounts import Account, AccountNotFoundError
from services.wallet.domain.administration import AccountTypeNotFoundError, ActKind, By, UserNotFoundError
from services.wallet.domain.limits import AccountType, LimitException, Member
from services.wallet.domain.sign_in import NameTakenError, Role
from services.wallet.handlers import accounts
from services.wallet.store import accounts as account_rows
from services.wallet.store import administration as rows
from services.wallet.store.administration import AccountRow
from shared.publishing import UnitOfWork


def _record(uow: UnitOfWork, by: By, kind: ActKind, subject: object, **details: Any) -> None:
    row = {"administrator": by.administrator, "kind": kind.value, "subject": str(subject), "reason": by.reason}
    uow.tell(rows.INSERT_ACT, {**row, "details": details})


async def get_user(uow: UnitOfWork, user_id: UUID, *, lock: bool = False) -> Member:
    """The user. Raises `UserNotFoundError`."""
    found = await account_rows.find_member(uow.connection, user_id, lock=lock)
    if found is None:
        raise UserNotFoundError(f"user {user_id} is not known here, or not yet")
    return found


async def set_user_limits(
    uow: UnitOfWork, by: By, user_id: UUID, limit_total: int | None, free_transfers: int
) -> Member:
    """Give a user a limit over all accounts (None: none), and free transfers a day. Raises `UserNotFoundError`."""
    user = await get_user(uow, user_id, lock=True)
    new = {"of_user": user_id, "new_limit_total": limit_total, "new_free_transfers": free_transfers}
    uow.tell(account_rows.SET_MEMBER_LIMITS, new)
    _record(uow, by, ActKind.SET_USER_LIMITS, user_id, limit_total=limit_total, free_transfers=free_transfers)
    return Member(user_id=user_id, active=user.active, limit_total=limit_total, free_transfers=free_transfers)


async def set_sign_in(uow: UnitOfWork, by: By, name: str, user_id: UUID | None, password_hash: str) -> None:
    """Have a user, or with None an administrator, sign in with this name and password; its sessions end.

    Raises `UserNotFoundError`, and `NameTakenError` where the name is another's or the user has another.
    """
    if user_id is not None:
        await get_user(uow, user_id, lock=True)
        if await rows.find_name_of(uow.connection, user_id) not in (None, name):
            raise NameTakenError(f"user {user_id} signs in with another name")
    role = Role.ADMINISTRATOR if user_id is None else Role.MEMBER
    row = {"name": name, "role": role.value, "user_id": user_id, "password_hash": password_hash}
    if not await rows.set_sign_in(uow.connection, row):
        raise NameTakenError(f"somebody else signs in as {name}")
    await rows.end_sessions_of(uow.connection, name)
    _record(uow, by, ActKind.SET_SIGN_IN, name, user_id=user_id and str(user_id), role=role.value)


def set_account_type(uow: UnitOfWork, by: By, offered: AccountType) -> None:
    """Offer a type of account, or give the one that has its name these limits."""
    accounts.record_account_type(uow, offered)
    limits = offered.limits
    _record(uow, by, ActKind.SET_ACCOUNT_TYPE, offered.name, one_time=limits.one_time, daily=limits.daily)


async def open_account(uow: UnitOfWork, by: By, user_id: UUID, account_type: str, currency: str) -> UUID:
    """Open an account for a user. Raises `UserNotFoundError` and `AccountTypeNotFoundError`."""
    await get_user(uow, user_id)
    if not await rows.has_account_type(uow.connection, account_type):
        raise AccountTypeNotFoundError(f"there is no account type {account_type}")
    account_id = accounts.open_account(uow, user_id, account_type, currency)
    _record(uow, by, ActKind.OPEN_ACCOUNT, account_id, user_id=str(user_id), type=account_type, currency=currency)
    return account_id


async def adjust(uow: UnitOfWork, by: By, account_id: UUID, amount: int) -> Account:
    """Post an amount from outside, or to outside where it is negative.

    Raises `AccountNotFoundError`, `InsufficientFundsError` and `BalanceTooLargeError`.
    """
    account = await accounts.adjust(uow, account_id, amount, by.reason, by.administrator)
    _record(uow, by, ActKind.ADJUST, account_id, amount=amount, currency=account.currency)
    return account


async def freeze(uow: UnitOfWork, by: By, account_id: UUID, *, frozen: bool) -> Account:
    """Freeze an account, or thaw it. Raises `AccountNotFoundError`."""
    account = await accounts.freeze(uow, account_id, frozen=frozen)
    _record(uow, by, ActKind.FREEZE if frozen else ActKind.THAW, account_id)
    return account


async def set_account_limits(
    uow: UnitOfWork, by: By, account_id: UUID, one_time: int | None, daily: int | None
) -> None:
    """Give an account limits of its own; None has its type's hold. Raises `AccountNotFoundError`."""
    await accounts.lock_account(uow, account_id)
    new = {"of_account": account_id, "new_one_time": one_time, "new_daily": daily}
    uow.tell(rows.SET_ACCOUNT_LIMITS, new)
    _record(uow, by, ActKind.SET_ACCOUNT_LIMITS, account_id, one_time=one_time, daily=daily)


async def grant_exception(uow: UnitOfWork, by: By, account_id: UUID, exception: LimitException) -> None:
    """Have another limit hold until the exception ends. Raises `AccountNotFoundError`."""
    await accounts.lock_account(uow, account_id)
    row = {
        "id": uuid4(),
        "account_id": account_id,
        "kind": exception.kind.value,
        "amount": exception.amount,
        "granted_at": exception.granted_at,
        "ends_at": exception.ends_at,
    }
    uow.tell(account_rows.INSERT_LIMIT_EXCEPTION, row)
    ends_at = exception.ends_at.isoformat()
    _record(
        uow,
        by,
        ActKind.GRANT_EXCEPTION,
        account_id,
        limit=exception.kind.value,
        amount=exception.amount,
        ends_at=ends_at,
    )


async def get_account(uow: UnitOfWork, account_id: UUID) -> tuple[AccountRow, tuple[LimitException, ...]]:
    """Whoever's account, with its type and limits. Raises `AccountNotFoundError`."""
    found = await rows.find_account_row(uow.connection, account_id, datetime.now(UTC))
    if found is None:
        raise AccountNotFoundError(f"account {account_id} does not exist")
    return found
