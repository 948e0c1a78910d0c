"""The use cases of who receives: asking for a share, settling what came of it, looking at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.wallet.domain.accounts import Account, AccountFrozenError, AccountNotFoundError
from services.wallet.domain.distributions import DistributionNotFoundError, receive
from services.wallet.domain.quotes import MemberInactiveError
from services.wallet.domain.receipts import (
    BEGIN_WITHIN,
    Receipt,
    ReceiptKeyReusedError,
    ReceiptNotFoundError,
    ReceiptStatus,
)
from services.wallet.handlers.accounts import member_account
from services.wallet.store import accounts as account_rows
from services.wallet.store import distributions as distribution_rows
from services.wallet.store import receipts as rows
from shared.publishing import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A share that the user wants; without `account_id`, into the oldest account of its currency."""

    user_id: UUID
    room_id: str
    token: str
    account_id: UUID | None = None
    key: str | None = None


async def begin(uow: UnitOfWork, wanted: Wanted, receipt_id: UUID) -> Receipt:
    """Check that there seems to be a share for the user, and write down that it is asked for.

    For a key of a receipt that is asked or received, that one. Raises `DistributionNotFoundError`,
    `NotForGiverError`, `AlreadyReceivedError`, `NothingLeftError`, `DistributionClosedError`,
    `AccountNotFoundError`, `AccountFrozenError`, `MemberInactiveError`, `ReceiptKeyReusedError`.
    """
    if (known := await _of_key(uow, wanted)) is not None:
        return known
    found = await distribution_rows.find_for(uow.connection, wanted.room_id, wanted.token, wanted.user_id)
    if found is None:
        raise DistributionNotFoundError("there is no such distribution in this room")
    now = await distribution_rows.read_clock(uow.connection)
    receive(found, wanted.user_id, wanted.room_id, now)
    member = await account_rows.find_member(uow.connection, wanted.user_id)
    if member is None or not member.active:
        raise MemberInactiveError(f"user {wanted.user_id} is deactivated, or not known here, or not yet")
    account = await _account_of(uow, wanted, found.currency)
    if account.frozen:
        raise AccountFrozenError(f"account {account.id} is frozen")
    new = Receipt(
        id=receipt_id,
        user_id=wanted.user_id,
        room_id=wanted.room_id,
        token=wanted.token,
        distribution_id=found.id,
        account_id=account.id,
        currency=found.currency,
        key=wanted.key,
        asked_at=now,
        begin_by=now + BEGIN_WITHIN,
    )
    if not await rows.insert_receipt(uow.connection, new):
        known = await _of_key(uow, wanted)
        assert known is not None, "a key that is taken has a receipt"
        return known
    return new


async def settle(uow: UnitOfWork, receipt_id: UUID) -> Receipt:
    """What came of a receipt: one that is asked, and that nobody has begun, is never begun from here on."""
    found = await rows.find_receipt(uow.connection, receipt_id)
    if found is not None and found.status is ReceiptStatus.ASKED:
        await rows.give_up(uow.connection, receipt_id)
        found = await rows.find_receipt(uow.connection, receipt_id)
    if found is None:
        raise ReceiptNotFoundError(f"receipt {receipt_id} does not exist")
    return found


async def get_receipt(uow: UnitOfWork, receipt_id: UUID, user_id: UUID) -> Receipt:
    """The user's receipt. Raises `ReceiptNotFoundError`."""
    found = await rows.find_receipt(uow.connection, receipt_id)
    if found is None or found.user_id != user_id:
        raise ReceiptNotFoundError(f"receipt {receipt_id} does not exist")
    return found


async def _of_key(uow: UnitOfWork, wanted: Wanted) -> Receipt | None:
    """The receipt of this key that is asked or received; one that nobody began in time is given up."""
    if wanted.key is None:
        return None
    found = await rows.find_by_key(uow.connection, wanted.user_id, wanted.key)
    if found is None:
        return None
    if (found.room_id, found.token) != (wanted.room_id, wanted.token) or wanted.account_id not in {
        None,
        found.account_id,
    }:
        raise ReceiptKeyReusedError("this Idempotency-Key was used for another request")
    over = await distribution_rows.read_clock(uow.connection) > found.begin_by
    if found.status is ReceiptStatus.ASKED and over and await rows.give_up(uow.connection, found.id):
        return None
    return found


async def _account_of(uow: UnitOfWork, wanted: Wanted, currency: str) -> Account:
    """Raises `AccountNotFoundError`, also for one in another currency."""
    owned: Sequence[Account] = await account_rows.list_accounts(uow.connection, wanted.user_id)
    if wanted.account_id is not None:
        member_account({one.id: one for one in owned}, wanted.account_id, wanted.user_id)
        owned = [one for one in owned if one.id == wanted.account_id]
    for one in owned:
        if one.currency == currency:
            return one
    which = "has no account" if wanted.account_id is None else f"has account {wanted.account_id} not"
    raise AccountNotFoundError(f"user {wanted.user_id} {which} in {currency}")
