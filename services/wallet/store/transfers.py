"""Transfers and postings: inserting, locking, and ending a batch of them in a few statements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, bindparam, func, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from services.wallet.domain.accounts import Account
from services.wallet.domain.postings import Posting
from services.wallet.domain.transfers import FailureReason, Transfer, TransferStatus
from services.wallet.store.tables import posting, transfer

INSERT_TRANSFER = insert(transfer)
INSERT_POSTING = insert(posting)

_FIND = select(transfer).where(transfer.c.id == bindparam("wanted"))
_LOCK = (
    select(transfer)
    .where(transfer.c.id == func.any(bindparam("wanted", type_=ARRAY(Uuid))))
    .order_by(transfer.c.id)
    .with_for_update(key_share=True)
)
# Only what is pending: a transfer ends once, whatever was read before.
_END = text(
    """
    update transfer t set status = told.status, reason = told.reason, ended_at = told.ended_at
      from unnest(cast(:ids as uuid[]), cast(:statuses as text[]), cast(:reasons as text[]),
                  cast(:ended as timestamptz[])) as told(id, status, reason, ended_at)
     where t.id = told.id and t.status = 'pending'
    """
)
_CHANGE_ACCOUNTS = text(
    """
    update account a set balance = a.balance + told.balance, held = a.held + told.held
      from unnest(cast(:ids as uuid[]), cast(:balances as bigint[]), cast(:helds as bigint[]))
           as told(id, balance, held)
     where a.id = told.id
    """
)
_ENTRIES = """
    select p.sequence, p.movement_id, p.amount, p.posted_at, t.sender_id, t.receiver_id, t.fee,
           case when t.sender_id = p.account_id then t.sender_label
                when t.receiver_id = p.account_id then t.receiver_label
                when d.id is not null then 'distribution ' || d.token
                when r.id is not null then 'share of ' || r.token
                when b.id is not null then 'back from ' || b.token else j.reason end as label
      from posting p left join transfer t on t.id = p.movement_id left join adjustment j on j.id = p.movement_id
      left join distribution d on d.id = p.movement_id left join receipt r on r.id = p.movement_id
      left join distribution b on b.given_back_id = p.movement_id
     where p.account_id = :account_id {before} order by p.sequence desc limit :page_size
    """
_FIRST_ENTRIES = text(_ENTRIES.format(before=""))
_NEXT_ENTRIES = text(_ENTRIES.format(before="and p.sequence < :before"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A posting as its account's owner reads it; sender, receiver and fee are a transfer's alone."""

    sequence: int
    movement_id: UUID
    amount: int
    posted_at: datetime
    sender_id: UUID | None
    receiver_id: UUID | None
    fee: int | None
    label: str


class LostLockError(RuntimeError):
    """A transfer that was locked as pending is not pending: the transaction must not be committed."""


def inserted(new: Transfer) -> dict[str, Any]:
    """The row for `INSERT_TRANSFER`."""
    return {**asdict(new), "status": new.status.value, "reason": new.reason and new.reason.value}


def posted(movement_id: UUID, made: Posting) -> dict[str, Any]:
    """The row for `INSERT_POSTING`, of what `movement_id` is."""
    return {"movement_id": movement_id, **asdict(made)}


async def find_transfer(connection: AsyncConnection, transfer_id: UUID) -> Transfer | None:
    row = (await connection.execute(_FIND, {"wanted": transfer_id})).mappings().first()
    return None if row is None else transfer_of(row)


async def lock_transfers(connection: AsyncConnection, ids: Iterable[UUID]) -> dict[UUID, Transfer]:
    """Those of the transfers that there are; nobody else ends them until the transaction does."""
    result = await connection.execute(_LOCK, {"wanted": sorted(set(ids))})
    return {row["id"]: transfer_of(row) for row in result.mappings()}


async def end_transfers(connection: AsyncConnection, ended: Sequence[Transfer]) -> None:
    """Write down how these transfers, which are locked, ended. Raises `LostLockError` when one had before."""
    result = await connection.execute(
        _END,
        {
            "ids": [one.id for one in ended],
            "statuses": [one.status.value for one in ended],
            "reasons": [one.reason and one.reason.value for one in ended],
            "ended": [one.ended_at for one in ended],
        },
    )
    if result.rowcount != len(ended):
        raise LostLockError(f"{len(ended)} transfers end, {result.rowcount} were pending")


async def change_accounts(connection: AsyncConnection, changes: Iterable[tuple[Account, Account]]) -> None:
    """Add to accounts, which are locked, what lies between each as it was and as it is to be."""
    differences = [
        (after.id, after.balance - before.balance, after.held - before.held) for before, after in changes
    ]
    if differences:
        ids, balances, helds = zip(*differences, strict=True)
        parameters = {"ids": list(ids), "balances": list(balances), "helds": list(helds)}
        await connection.execute(_CHANGE_ACCOUNTS, parameters)


async def list_entries(
    connection: AsyncConnection, account_id: UUID, before: int | None, page_size: int
) -> list[Entry]:
    """An account's postings, newest first, beginning after sequence number `before`."""
    parameters = {"account_id": account_id, "page_size": page_size}
    if before is None:
        result = await connection.execute(_FIRST_ENTRIES, parameters)
    else:
        result = await connection.execute(_NEXT_ENTRIES, {**parameters, "before": before})
    return [Entry(**row) for row in result.mappings()]


def transfer_of(row: Mapping[Any, Any]) -> Transfer:
    """The transfer of a row of its table."""
    reason = row["reason"]
    status = {"status": TransferStatus(row["status"]), "reason": reason and FailureReason(reason)}
    return Transfer(**{**row, **status})
