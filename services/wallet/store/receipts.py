"""Receipts: finding, locking, and ending those that were not begun."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Interval, Uuid, bindparam, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from services.wallet.domain.receipts import Receipt, ReceiptStatus, Refusal
from services.wallet.store.tables import receipt

_FIND = select(receipt).where(receipt.c.id == func.any(bindparam("wanted", type_=postgresql.ARRAY(Uuid))))
# Of an array PostgreSQL plans it anew each time.
_FIND_ONE = select(receipt).where(receipt.c.id == bindparam("wanted"))
_LOCK = _FIND.order_by(receipt.c.id).with_for_update(key_share=True)
# Whoever has begun it holds its row: it is left to them.
_GIVE_UP = text(
    """
    update receipt set status = 'not_begun', ended_at = clock_timestamp()
     where id = any (array(select id from receipt where id = any(:ids) and status = 'asked'
                            for no key update skip locked))
    """
).bindparams(bindparam("ids", type_=postgresql.ARRAY(Uuid)))
_GIVE_UP_LATE = text(
    """
    update receipt set status = 'not_begun', ended_at = clock_timestamp()
     where id = any (array(select id from receipt where status = 'asked' and begin_by < clock_timestamp()
                            limit :most for no key update skip locked))
    """
)
_FORGET = text(
    """
    delete from receipt where id = any (array(
      select id from receipt where status in ('refused', 'not_begun') and asked_at < clock_timestamp() - :kept_for
       limit :most for update skip locked))
    """
).bindparams(bindparam("kept_for", type_=Interval))


async def find_receipt(connection: AsyncConnection, receipt_id: UUID) -> Receipt | None:
    return (await find_receipts(connection, [receipt_id])).get(receipt_id)


async def find_receipts(connection: AsyncConnection, ids: Iterable[UUID]) -> dict[UUID, Receipt]:
    """Those of the receipts that there are, as they are at this moment."""
    wanted = list(ids)
    if len(wanted) == 1:
        result = await connection.execute(_FIND_ONE, {"wanted": wanted[0]})
    else:
        result = await connection.execute(_FIND, {"wanted": wanted})
    return {row["id"]: receipt_of(row) for row in result.mappings()}


async def lock_receipts(connection: AsyncConnection, ids: Iterable[UUID]) -> dict[UUID, Receipt]:
    """Those of the receipts that there are; nobody else ends them until the transaction does."""
    result = await connection.execute(_LOCK, {"wanted": sorted(set(ids))})
    return {row["id"]: receipt_of(row) for row in result.mappings()}


async def give_up(connection: AsyncConnection, ids: Iterable[UUID]) -> int:
    """Have receipts that are asked, and that nobody has begun, never be begun; how many were."""
    return (await connection.execute(_GIVE_UP, {"ids": list(ids)})).rowcount


async def give_up_late(connection: AsyncConnection, most: int) -> int:
    """The same for receipts whose time is over; how many there were."""
    return (await connection.execute(_GIVE_UP_LATE, {"most": most})).rowcount


async def forget(connection: AsyncConnection, kept_for: timedelta, most: int) -> int:
    """Delete receipts that came to nothing so long ago; how many."""
    return (await connection.execute(_FORGET, {"kept_for": kept_for, "most": most})).rowcount


def receipt_of(row: Mapping[Any, Any]) -> Receipt:
    """The receipt of a row that has its columns."""
    reason = row["reason"]
    told = {"status": ReceiptStatus(row["status"]), "reason": reason and Refusal(reason)}
    return Receipt(**{**row, **told})
