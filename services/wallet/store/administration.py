"""What administrators read: users, accounts, types, transfers, and what was done; and the record of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, bindparam, insert, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from services.wallet.domain.limits import AccountType, LimitException, Limits, Member
from services.wallet.domain.transfers import Transfer, TransferStatus
from services.wallet.store.accounts import find_exceptions
from services.wallet.store.tables import account, account_type, act, member, sign_in, transfer
from services.wallet.store.transfers import transfer_of

INSERT_ACT = insert(act)
SET_ACCOUNT_LIMITS = (
    update(account)
    .where(account.c.id == bindparam("of_account"))
    .values(limit_one_time=bindparam("new_one_time"), limit_daily=bindparam("new_daily"))
)
_MEMBERS = select(member.c.user_id, member.c.active, member.c.limit_total, member.c.free_transfers).order_by(
    member.c.user_id
)
# Nothing is changed where the name is another's: then no row comes back.
_new_sign_in = postgresql.insert(sign_in)
_SET_SIGN_IN = _new_sign_in.on_conflict_do_update(
    index_elements=[sign_in.c.name],
    set_={"password_hash": _new_sign_in.excluded.password_hash, "attempts": 0, "not_before": None},
    where=sign_in.c.user_id.is_not_distinct_from(_new_sign_in.excluded.user_id),
).returning(sign_in.c.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """An account's type, its own limits (None where the type's hold), and the exceptions that have not ended."""

    id: UUID
    user_id: UUID
    type: str
    currency: str
    limit_one_time: int | None
    limit_daily: int | None
    balance: int
    held: int
    frozen: bool
    opened_at: datetime

    @property
    def available(self) -> int:
        return self.balance - self.held


@dataclass(frozen=True, slots=True, kw_only=True)
class ActRow:
    """What an administrator did."""

    sequence: int
    administrator: str
    kind: str
    subject: str
    reason: str
    details: Mapping[str, Any]
    done_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferFilter:
    """Which transfers; None is whichever. `account_id` sends or receives."""

    user_id: UUID | None = None
    account_id: UUID | None = None
    status: TransferStatus | None = None


async def list_members(connection: AsyncConnection, after: UUID | None, page_size: int) -> list[Member]:
    """Users by their ids, those after `after`."""
    query = _MEMBERS.limit(page_size)
    if after is not None:
        query = query.where(member.c.user_id > after)
    return [Member(**row) for row in (await connection.execute(query)).mappings()]


async def find_name_of(connection: AsyncConnection, user_id: UUID) -> str | None:
    """The name with which a user signs in; None without one."""
    query = select(sign_in.c.name).where(sign_in.c.user_id == user_id)
    return (await connection.execute(query)).scalar_one_or_none()


async def set_sign_in(connection: AsyncConnection, row: Mapping[str, Any]) -> bool:
    """Have somebody sign in with this name and password; False where the name is another's."""
    return (await connection.execute(_SET_SIGN_IN, row)).first() is not None


async def list_account_types(connection: AsyncConnection) -> list[AccountType]:
    """Every type, by its name, at most a thousand."""
    query = select(account_type).order_by(account_type.c.name).limit(1_000)
    rows = (await connection.execute(query)).mappings()
    return [AccountType(row["name"], Limits(row["limit_one_time"], row["limit_daily"])) for row in rows]


async def has_account_type(connection: AsyncConnection, name: str) -> bool:
    query = select(account_type.c.name).where(account_type.c.name == name)
    return (await connection.execute(query)).first() is not None


async def list_account_rows(
    connection: AsyncConnection, user_id: UUID | None, before: UUID | None, page_size: int
) -> list[AccountRow]:
    """Members' accounts, newest first, of all users or of one."""
    query = _of_members().order_by(account.c.id.desc()).limit(page_size)
    if user_id is not None:
        query = query.where(account.c.user_id == user_id)
    if before is not None:
        query = query.where(account.c.id < before)
    return [AccountRow(**row) for row in (await connection.execute(query)).mappings()]


async def find_account_row(
    connection: AsyncConnection, account_id: UUID, now: datetime
) -> tuple[AccountRow, tuple[LimitException, ...]] | None:
    """A member's account, and the exceptions from its limits that have not ended at `now`."""
    row = (await connection.execute(_of_members().where(account.c.id == account_id))).mappings().first()
    if row is None:
        return None
    return AccountRow(**row), await find_exceptions(connection, account_id, now)


def _of_members() -> Select[Any]:
    columns = [account.c[name] for name in AccountRow.__slots__]
    return select(*columns).where(account.c.kind == "member")


async def list_transfers(
    connection: AsyncConnection, wanted: TransferFilter, before: UUID | None, page_size: int
) -> list[Transfer]:
    """Transfers, newest first."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.user_id is not None:
        conditions.append(transfer.c.user_id == wanted.user_id)
    if wanted.account_id is not None:
        conditions.append(
            (transfer.c.sender_id == wanted.account_id) | (transfer.c.receiver_id == wanted.account_id)
        )
    if wanted.status is not None:
        conditions.append(transfer.c.status == wanted.status.value)
    if before is not None:
        conditions.append(transfer.c.id < before)
    query = select(transfer).where(*conditions).order_by(transfer.c.id.desc()).limit(page_size)
    return [transfer_of(row) for row in (await connection.execute(query)).mappings()]


async def list_acts(
    connection: AsyncConnection, subject: str | None, before: int | None, page_size: int
) -> list[ActRow]:
    """What administrators did, newest first, to anything or to one subject."""
    query = select(act).order_by(act.c.sequence.desc()).limit(page_size)
    if subject is not None:
        query = query.where(act.c.subject == subject)
    if before is not None:
        query = query.where(act.c.sequence < before)
    return [ActRow(**row) for row in (await connection.execute(query)).mappings()]


async def end_sessions_of(connection: AsyncConnection, name: str) -> None:
    """Whoever is signed in with this name is so no more."""
    await connection.execute(text("delete from session where name = :name"), {"name": name})
