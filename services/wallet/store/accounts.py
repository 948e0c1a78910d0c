"""Members, accounts, their limits, and what a day has used: reading, locking, changing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Date, Integer, Uuid, bindparam, func, insert, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from services.wallet.domain.accounts import Account, AccountKind
from services.wallet.domain.limits import LimitException, LimitKind, Limits, Member, Usage
from services.wallet.store.tables import account, account_type, adjustment, limit_exception, member, usage_day

INSERT_ADJUSTMENT = insert(adjustment)
INSERT_LIMIT_EXCEPTION = insert(limit_exception)
INSERT_ACCOUNT = insert(account)
INSERT_ACCOUNT_IF_NEW = postgresql.insert(account).on_conflict_do_nothing()

_new_type = postgresql.insert(account_type)
RECORD_ACCOUNT_TYPE = _new_type.on_conflict_do_update(
    index_elements=[account_type.c.name],
    set_={name: _new_type.excluded[name] for name in ("limit_one_time", "limit_daily")},
)

_new_member = postgresql.insert(member)
# Events may arrive twice, late, or before the registration: whatever is newest wins.
RECORD_MEMBER = _new_member.on_conflict_do_update(
    index_elements=[member.c.user_id],
    set_={name: _new_member.excluded[name] for name in ("active", "version")},
    where=member.c.version < _new_member.excluded.version,
)
SET_MEMBER_LIMITS = (
    update(member)
    .where(member.c.user_id == bindparam("of_user"))
    .values(limit_total=bindparam("new_limit_total"), free_transfers=bindparam("new_free_transfers"))
)
FREEZE_ACCOUNT = (
    update(account).where(account.c.id == bindparam("account_id")).values(frozen=bindparam("new_frozen"))
)

# Added to what is there: right whoever else changed the row, whatever was read before.
CHANGE_ACCOUNT = (
    update(account)
    .where(account.c.id == bindparam("account_id"))
    .values(
        balance=account.c.balance + bindparam("more_balance", type_=BigInteger),
        held=account.c.held + bindparam("more_held", type_=BigInteger),
    )
)
_new_usage = postgresql.insert(usage_day)
USE = _new_usage.on_conflict_do_update(
    index_elements=[usage_day.c.account_id, usage_day.c.day],
    set_={
        "sent": usage_day.c.sent + _new_usage.excluded.sent,
        "free_transfers": usage_day.c.free_transfers + _new_usage.excluded.free_transfers,
    },
)
GIVE_BACK = (
    update(usage_day)
    .where(
        usage_day.c.account_id == bindparam("of_account", type_=Uuid),
        usage_day.c.day == bindparam("of_day", type_=Date),
    )
    .values(
        sent=usage_day.c.sent - bindparam("less_sent", type_=BigInteger),
        free_transfers=usage_day.c.free_transfers - bindparam("less_free", type_=Integer),
    )
)

_ACCOUNTS = select(
    account.c.id,
    account.c.kind,
    account.c.currency,
    account.c.user_id,
    account.c.balance,
    account.c.held,
    account.c.frozen,
    func.coalesce(account.c.limit_one_time, account_type.c.limit_one_time, 0).label("limit_one_time"),
    func.coalesce(account.c.limit_daily, account_type.c.limit_daily, 0).label("limit_daily"),
).select_from(account.outerjoin(account_type, account_type.c.name == account.c.type))
_FIND_ACCOUNTS = _ACCOUNTS.where(account.c.id == func.any(bindparam("wanted", type_=postgresql.ARRAY(Uuid))))
_LIST_ACCOUNTS = _ACCOUNTS.where(account.c.user_id == bindparam("of_user")).order_by(account.c.id).limit(1_000)
# Not `for update`: nobody changes an account's id, and readers of the id need not wait.
_LOCK_ACCOUNTS = _FIND_ACCOUNTS.order_by(account.c.id).with_for_update(key_share=True, of=account)
_LOCK_ACCOUNTS_NOW = _LOCK_ACCOUNTS.add_columns(func.clock_timestamp().label("now"))
_FIND_MEMBER = select(member.c.user_id, member.c.active, member.c.limit_total, member.c.free_transfers).where(
    member.c.user_id == bindparam("wanted")
)
_LOCK_MEMBER = _FIND_MEMBER.with_for_update(key_share=True)
_USAGE = text(
    """
    select coalesce(sum(sent) filter (where account_id = :account_id), 0)::bigint as sent_by_account,
           coalesce(sum(sent), 0)::bigint as sent_by_user,
           coalesce(sum(free_transfers), 0)::integer as free_transfers
      from usage_day where user_id = :user_id and day = :day
    """
)
_EXCEPTIONS = select(
    limit_exception.c.kind, limit_exception.c.amount, limit_exception.c.granted_at, limit_exception.c.ends_at
).where(limit_exception.c.account_id == bindparam("of_account"), limit_exception.c.ends_at > bindparam("now"))


async def find_accounts(connection: AsyncConnection, ids: Iterable[UUID]) -> dict[UUID, Account]:
    """Those of the accounts that there are, as they are at this moment."""
    return await _read_accounts(connection, _FIND_ACCOUNTS, ids)


async def list_accounts(connection: AsyncConnection, user_id: UUID) -> list[Account]:
    """A user's accounts, the oldest first, at most a thousand."""
    return [account_of(row) for row in (await connection.execute(_LIST_ACCOUNTS, {"of_user": user_id})).mappings()]


async def lock_accounts(connection: AsyncConnection, ids: Iterable[UUID]) -> dict[UUID, Account]:
    """Those of the accounts that there are; nobody else changes them until the transaction ends."""
    return await _read_accounts(connection, _LOCK_ACCOUNTS, ids)


async def lock_accounts_now(
    connection: AsyncConnection, ids: Iterable[UUID]
) -> tuple[dict[UUID, Account], datetime | None]:
    """The same, and the database's clock after whatever was locked before; None where there is no account."""
    result = await connection.execute(_LOCK_ACCOUNTS_NOW, {"wanted": sorted(set(ids))})
    rows = result.mappings().all()
    return {row["id"]: account_of(row) for row in rows}, rows[0]["now"] if rows else None


async def find_member(connection: AsyncConnection, user_id: UUID, *, lock: bool = False) -> Member | None:
    """The member; with `lock`, who else sends in this user's name waits until the transaction ends."""
    statement = _LOCK_MEMBER if lock else _FIND_MEMBER
    row = (await connection.execute(statement, {"wanted": user_id})).mappings().first()
    return None if row is None else Member(**row)


async def find_usage(connection: AsyncConnection, account_id: UUID, user_id: UUID, day: date) -> Usage:
    """What the day has used of the account's limits and of the user's."""
    parameters = {"account_id": account_id, "user_id": user_id, "day": day}
    row = (await connection.execute(_USAGE, parameters)).mappings().one()
    return Usage(**row)


async def find_exceptions(
    connection: AsyncConnection, account_id: UUID, now: datetime
) -> tuple[LimitException, ...]:
    """The exceptions from the account's limits that have not ended."""
    result = await connection.execute(_EXCEPTIONS, {"of_account": account_id, "now": now})
    return tuple(LimitException(**{**row, "kind": LimitKind(row["kind"])}) for row in result.mappings())


async def _read_accounts(connection: AsyncConnection, statement: Any, ids: Iterable[UUID]) -> dict[UUID, Account]:
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    return {
        row["id"]: account_of(row) for row in (await connection.execute(statement, {"wanted": wanted})).mappings()
    }


def account_of(row: Mapping[Any, Any]) -> Account:
    """The account of a row with its columns, and its limits where they are its type's."""
    columns = {name: row[name] for name in ("id", "currency", "user_id", "balance", "held", "frozen")}
    limits = Limits(row["limit_one_time"], row["limit_daily"])
    return Account(kind=AccountKind(row["kind"]), limits=limits, **columns)
