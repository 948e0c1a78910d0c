"""What a batch of receipts comes to, written down by one statement; by one in half of the time where it is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.wallet.domain.accounts import Account
from services.wallet.domain.receipts import Outcome
from services.wallet.store.transfers import LostLockError

# Only what is asked, and what is free: a receipt ends once and a share is taken once, whatever was read before.
_WRITE = text(
    """
    with ended as (
      update receipt r set status = told.status, reason = told.reason, amount = told.amount,
                           ended_at = told.ended_at
        from unnest(cast(:ended_ids as uuid[]), cast(:statuses as text[]), cast(:reasons as text[]),
                    cast(:amounts as bigint[]), cast(:ended_at as timestamptz[]))
             as told(id, status, reason, amount, ended_at)
       where r.id = told.id and r.status = 'asked'
      returning r.id
    ), taken as (
      update distribution_share s set receiver_id = told.receiver_id, receipt_id = told.receipt_id,
                                      taken_at = told.taken_at
        from unnest(cast(:distributions as uuid[]), cast(:numbers as integer[]), cast(:receivers as uuid[]),
                    cast(:receipts as uuid[]), cast(:taken_at as timestamptz[]))
             as told(id, number, receiver_id, receipt_id, taken_at)
       where s.distribution_id = told.id and s.number = told.number and s.receiver_id is null
      returning s.number
    ), changed as (
      update account a set balance = a.balance + told.balance
        from unnest(cast(:changed_ids as uuid[]), cast(:balances as bigint[])) as told(id, balance)
       where a.id = told.id
      returning a.id
    ), posted as (
      insert into posting (movement_id, account_id, currency, amount)
      select told.* from unnest(cast(:movements as uuid[]), cast(:accounts as uuid[]), cast(:currencies as text[]),
                                cast(:moved as bigint[])) as told(movement_id, account_id, currency, amount)
    )
    select (select count(*) from ended) as ended, (select count(*) from taken) as taken,
           (select count(*) from changed) as changed
    """
)


# The same of one receipt that is received, in values in place of arrays.
_WRITE_ONE = text(
    """
    with ended as (
      update receipt r set status = :status, reason = :reason, amount = :amount, ended_at = :ended_at
       where r.id = :id and r.status = 'asked'
      returning r.id
    ), taken as (
      update distribution_share s set receiver_id = :receiver_id, receipt_id = :id, taken_at = :taken_at
       where s.distribution_id = :distribution_id and s.number = :number and s.receiver_id is null
      returning s.number
    ), changed as (
      update account a set balance = a.balance + case a.id when :one then cast(:more_of_one as bigint)
                                                           else cast(:more_of_other as bigint) end
       where a.id in (:one, :other)
      returning a.id
    ), posted as (
      insert into posting (movement_id, account_id, currency, amount)
      values (:id, :first, :first_currency, :first_amount), (:id, :second, :second_currency, :second_amount)
    )
    select (select count(*) from ended) as ended, (select count(*) from taken) as taken,
           (select count(*) from changed) as changed
    """
)


async def write_outcomes(
    connection: AsyncConnection, outcomes: Sequence[Outcome], changes: Iterable[tuple[Account, Account]]
) -> None:
    """Write down how these receipts ended, with their shares and postings; all that changes is locked.

    `changes` are the accounts as they were and as they are to be. Raises `LostLockError` when a receipt had ended,
    a share was not free, or an account is gone: then the transaction must not be committed.
    """
    changes = list(changes)
    if (
        len(outcomes) == 1 and len(changes) == len(outcomes[0].postings) == 2
    ):  # nearly always, while little happens
        written = (await connection.execute(_WRITE_ONE, _told(outcomes[0], changes))).one()
        _require((1, 1, 2), tuple(written))
        return
    ended = [one.receipt for one in outcomes]
    taken = [(one, one.share) for one in outcomes if one.share is not None]
    moved = [(one.receipt.id, posting) for one in outcomes for posting in one.postings]
    changed = [(after.id, after.balance - before.balance) for before, after in changes]
    parameters: dict[str, Any] = {
        "ended_ids": [one.id for one in ended],
        "statuses": [one.status.value for one in ended],
        "reasons": [one.reason and one.reason.value for one in ended],
        "amounts": [one.amount for one in ended],
        "ended_at": [one.ended_at for one in ended],
        "distributions": [one.distribution.id for one, _ in taken],
        "numbers": [share.number for _, share in taken],
        "receivers": [share.receiver_id for _, share in taken],
        "receipts": [one.receipt.id for one, _ in taken],
        "taken_at": [share.taken_at for _, share in taken],
        "changed_ids": [account_id for account_id, _ in changed],
        "balances": [more for _, more in changed],
        "movements": [movement_id for movement_id, _ in moved],
        "accounts": [posting.account_id for _, posting in moved],
        "currencies": [posting.currency for _, posting in moved],
        "moved": [posting.amount for _, posting in moved],
    }
    written = (await connection.execute(_WRITE, parameters)).one()
    _require((len(ended), len(taken), len(changed)), tuple(written))


def _told(outcome: Outcome, changes: Sequence[tuple[Account, Account]]) -> dict[str, Any]:
    receipt, share, (first, second) = outcome.receipt, outcome.share, outcome.postings
    assert share is not None, "what is posted is a share"
    one, other = changes
    return {
        "id": receipt.id,
        "status": receipt.status.value,
        "reason": receipt.reason and receipt.reason.value,
        "amount": receipt.amount,
        "ended_at": receipt.ended_at,
        "distribution_id": outcome.distribution.id,
        "number": share.number,
        "receiver_id": share.receiver_id,
        "taken_at": share.taken_at,
        "one": one[1].id,
        "more_of_one": one[1].balance - one[0].balance,
        "other": other[1].id,
        "more_of_other": other[1].balance - other[0].balance,
        "first": first.account_id,
        "first_currency": first.currency,
        "first_amount": first.amount,
        "second": second.account_id,
        "second_currency": second.currency,
        "second_amount": second.amount,
    }


def _require(wanted: tuple[int, int, int], written: tuple[int, ...]) -> None:
    """Raises `LostLockError`."""
    if wanted != written:
        told = zip(wanted, written, ("receipts end, {} were asked for", "shares are taken, {} were free",
                                     "accounts change, {} are there"), strict=True)  # fmt: skip
        raise LostLockError("; ".join(f"{many} {what.format(found)}" for many, found, what in told))
