"""Receipts: asking, locking, ending a batch of them, and ending one that was not begun."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Interval, Uuid, bindparam, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from services.wallet.domain.receipts import Receipt, ReceiptStatus, Refusal
from services.wallet.store.tables import receipt
from services.wallet.store.transfers import LostLockError

# Waits while another transaction inserts one with the same key; returns a row only if there is none.
_INSERT = postgresql.insert(receipt).on_conflict_do_nothing().returning(receipt.c.id)
_FIND = select(receipt).where(receipt.c.id == bindparam("wanted"))
_FIND_BY_KEY = select(receipt).where(
    receipt.c.user_id == bindparam("of_user"),
    receipt.c.key == bindparam("with_key"),
    receipt.c.status.in_(["asked", "received"]),
)
_LOCK = (
    select(receipt)
    .where(receipt.c.id == func.any(bindparam("wanted", type_=postgresql.ARRAY(Uuid))))
    .order_by(receipt.c.id)
    .with_for_update(key_share=True)
)
_END = text(
    """
    update receipt r set status = told.status, reason = told.reason, amount = told.amount, ended_at = told.ended_at
      from unnest(cast(:ids as uuid[]), cast(:statuses as text[]), cast(:reasons as text[]),
                  cast(:amounts as bigint[]), cast(:ended as timestamptz[]))
           as told(id, status, reason, amount, ended_at)
     where r.id = told.id and r.status = 'asked'
    """
)
# Whoever has begun it holds its row: it is left to them.
_GIVE_UP = text(
    """
    update receipt set status = 'not_begun', ended_at = clock_timestamp()
     where id = (select id from receipt where id = :id and status = 'asked' for no key update skip locked)
    """
).bindparams(bindparam("id", type_=Uuid))
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


async def insert_receipt(connection: AsyncConnection, new: Receipt) -> bool:
    """Write down a new one; False where the user has one of this key that is asked or received."""
    return (await connection.execute(_INSERT, {**asdict(new), "status": new.status.value})).first() is not None


async def find_receipt(connection: AsyncConnection, receipt_id: UUID) -> Receipt | None:
    row = (await connection.execute(_FIND, {"wanted": receipt_id})).mappings().first()
    return None if row is None else _receipt(row)


async def find_by_key(connection: AsyncConnection, user_id: UUID, key: str) -> Receipt | None:
    """The user's receipt of this Idempotency-Key that is asked or received; others leave the key free."""
    row = (await connection.execute(_FIND_BY_KEY, {"of_user": user_id, "with_key": key})).mappings().first()
    return None if row is None else _receipt(row)


async def lock_receipts(connection: AsyncConnection, ids: Iterable[UUID]) -> dict[UUID, Receipt]:
    """Those of the receipts that there are; nobody else ends them until the transaction does."""
    result = await connection.execute(_LOCK, {"wanted": sorted(set(ids))})
    return {row["id"]: _receipt(row) for row in result.mappings()}


async def end_receipts(connection: AsyncConnection, ended: Sequence[Receipt]) -> None:
    """Write down how these receipts, which are locked, ended. Raises `LostLockError` when one had before."""
    result = await connection.execute(
        _END,
        {
            "ids": [one.id for one in ended],
            "statuses": [one.status.value for one in ended],
            "reasons": [one.reason and one.reason.value for one in ended],
            "amounts": [one.amount for one in ended],
            "ended": [one.ended_at for one in ended],
        },
    )
    if result.rowcount != len(ended):
        raise LostLockError(f"{len(ended)} receipts end, {result.rowcount} were asked for")


async def give_up(connection: AsyncConnection, receipt_id: UUID) -> bool:
    """Have a receipt that is asked, and that nobody has begun, never be begun; whether it was one."""
    return (await connection.execute(_GIVE_UP, {"id": receipt_id})).rowcount == 1


async def give_up_late(connection: AsyncConnection, most: int) -> int:
    """The same for receipts whose time is over; how many there were."""
    return (await connection.execute(_GIVE_UP_LATE, {"most": most})).rowcount


async def forget(connection: AsyncConnection, kept_for: timedelta, most: int) -> int:
    """Delete receipts that came to nothing so long ago; how many."""
    return (await connection.execute(_FORGET, {"kept_for": kept_for, "most": most})).rowcount


def _receipt(row: Mapping[Any, Any]) -> Receipt:
    reason = row["reason"]
    told = {"status": ReceiptStatus(row["status"]), "reason": reason and Refusal(reason)}
    return Receipt(**{**row, **told})
