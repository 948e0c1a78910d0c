"""What a lone request for a share is about: locked and read by one statement, where a batch takes four.

A statement reads as of its beginning, and locks what is newest. So where it had to wait for a lock, the shares
that it read may be taken meanwhile. Then their account is poorer, which only ever loses: that is looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.wallet.domain.accounts import Account
from services.wallet.domain.distributions import Distribution
from services.wallet.domain.receipts import Receipt
from services.wallet.store.accounts import account_of
from services.wallet.store.distributions import (
    KNOWN,
    SHARES,
    distribution_of,
    shares_of,
    shares_of_distribution,
)
from services.wallet.store.receipts import receipt_of
from services.wallet.store.tables import receipt

_ACCOUNT = ("id", "kind", "currency", "user_id", "balance", "held", "frozen", "limit_one_time", "limit_daily")
_RECEIPT, _DISTRIBUTION = tuple(receipt.c.keys()), tuple(column.name for column in KNOWN)
_PARTS = {"r": _RECEIPT, "d": _DISTRIBUTION, "pot": _ACCOUNT, "own": _ACCOUNT}
_COLUMNS = ", ".join(f"{of}.{name} as {of}_{name}" for of, names in _PARTS.items() for name in names)

# In the order in which all lock: receipt, distribution, accounts by id. Each part needs the one before.
_LOCK_ONE = text(
    f"""
    with r as materialized (
      select * from receipt where id = :id and status = 'asked' for no key update
    ), d as materialized (
      select * from distribution where id = (select distribution_id from r) for no key update
    ), a as materialized (
      select a.id, a.kind, a.currency, a.user_id, a.balance, a.held, a.frozen,
             coalesce(a.limit_one_time, t.limit_one_time, 0) as limit_one_time,
             coalesce(a.limit_daily, t.limit_daily, 0) as limit_daily, clock_timestamp() as now
        from account a
        left join account_type t on t.name = a.type
       where a.id = any (array(select id from d union all select r.account_id from r, d))
       order by a.id
         for no key update of a
    )
    select {_COLUMNS}, pot.now, before.balance = pot.balance as as_read,
           {SHARES}
      from r
      join d on true
      join a pot on pot.id = d.id
      join a own on own.id = r.account_id
      join account before on before.id = d.id
      {shares_of_distribution("r.user_id")}
    """  # noqa: S608  constants
)


@dataclass(frozen=True, slots=True)
class Locked:
    """A receipt that is asked, its distribution with the share that the user has and the next free one, and the
    accounts of both; `now` by the database's clock, after receipt and distribution were locked."""

    receipt: Receipt
    distribution: Distribution
    accounts: tuple[Account, Account]
    now: datetime


async def lock_one(connection: AsyncConnection, receipt_id: UUID) -> Locked | None:
    """Nobody else ends it, takes from its distribution or changes the accounts until the transaction ends.

    None: it is not asked, something that it needs is not there, or somebody else took a share while this waited.
    What is there is locked all the same, and may be read by itself.
    """
    row = (await connection.execute(_LOCK_ONE, {"id": receipt_id})).mappings().first()
    if row is None or not row["as_read"]:
        return None
    asked, found = receipt_of(_part(row, "r")), distribution_of(_part(row, "d"))
    accounts = account_of(_part(row, "pot")), account_of(_part(row, "own"))
    return Locked(asked, replace(found, shares=shares_of(row, asked.user_id)), accounts, row["now"])


def _part(row: Mapping[Any, Any], of: str) -> dict[str, Any]:
    return {name: row[f"{of}_{name}"] for name in _PARTS[of]}
