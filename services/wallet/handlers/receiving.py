"""The use cases of who receives: asking for a share, settling what came of it, looking at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.wallet.domain.accounts import AccountFrozenError, AccountNotFoundError
from services.wallet.domain.distributions import DistributionNotFoundError, receive
from services.wallet.domain.quotes import MemberInactiveError
from services.wallet.domain.receipts import (
    Receipt,
    ReceiptKeyReusedError,
    ReceiptNotFoundError,
    ReceiptStatus,
    Wanted,
)
from services.wallet.store import asking
from services.wallet.store import receipts as rows
from services.wallet.store.asking import Asked, Seen
from shared.errors import BusinessError, UnavailableError
from shared.publishing import UnitOfWork

_LOOKS_MAX: Final = 5


async def begin(uow: UnitOfWork, wanted: Wanted, receipt_id: UUID) -> Receipt:
    """Check that there seems to be a share for the user, and write down that it is asked for.

    For a key of a receipt that is asked or received, that one. Raises `DistributionNotFoundError`,
    `NotForGiverError`, `AlreadyReceivedError`, `NothingLeftError`, `DistributionClosedError`,
    `AccountNotFoundError`, `AccountFrozenError`, `MemberInactiveError`, `ReceiptKeyReusedError`.
    """
    [outcome] = await begin_all(uow.connection, [Asked(receipt_id, wanted)])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def begin_all(connection: AsyncConnection, asked: Sequence[Asked]) -> list[Receipt | Exception]:
    """The same for many, by one statement where none has a key that was used before: for each its receipt, or
    what `begin` would raise. Nothing has to be one transaction with anything else."""
    outcomes: dict[UUID, Receipt | Exception] = {}
    left = list(asked)
    for _ in range(_LOOKS_MAX):
        seen = dict(zip((one.receipt_id for one in left), await asking.ask(connection, left), strict=True))
        known = [found.known_id for found in seen.values() if found.known_id is not None]
        of_keys = await rows.find_receipts(connection, known) if known else {}
        for one in left:
            outcome = await _outcome(connection, one.wanted, seen[one.receipt_id], of_keys)
            if outcome is not None:
                outcomes[one.receipt_id] = outcome
        left = [one for one in left if one.receipt_id not in outcomes]
        if not left:
            break
    busy = UnavailableError("others use the same Idempotency-Key at this moment")
    return [outcomes.get(one.receipt_id, busy) for one in asked]


async def _outcome(
    connection: AsyncConnection, wanted: Wanted, seen: Seen, of_keys: dict[UUID, Receipt]
) -> Receipt | Exception | None:
    """The receipt, or why there is none; None where it is to be looked again, since its key was used meanwhile."""
    try:
        if seen.known_id is not None:
            return await _of_key(connection, wanted, seen, of_keys.get(seen.known_id))
        _require_share(wanted, seen)
    except BusinessError as error:
        assert seen.receipt is None, "what is written down is what the rules allow"
        return error
    return seen.receipt


def _require_share(wanted: Wanted, seen: Seen) -> None:
    """Raises what `begin` raises where there is no share for the user, as far as one can see."""
    if seen.distribution is None:
        raise DistributionNotFoundError("there is no such distribution in this room")
    receive(seen.distribution, wanted.user_id, wanted.room_id, seen.now)
    if not seen.is_active:
        raise MemberInactiveError(f"user {wanted.user_id} is deactivated, or not known here, or not yet")
    if seen.account_id is None:
        which = "no account" if wanted.account_id is None else f"no account {wanted.account_id}"
        raise AccountNotFoundError(f"user {wanted.user_id} has {which} in {seen.distribution.currency}")
    if seen.is_frozen:
        raise AccountFrozenError(f"account {seen.account_id} is frozen")


async def _of_key(
    connection: AsyncConnection, wanted: Wanted, seen: Seen, found: Receipt | None
) -> Receipt | None:
    """The receipt of this key that is asked or received; None where it came to nothing, now or meanwhile.

    Raises `ReceiptKeyReusedError`.
    """
    if found is None:
        return None
    if (found.room_id, found.token) != (wanted.room_id, wanted.token) or wanted.account_id not in {
        None,
        found.account_id,
    }:
        raise ReceiptKeyReusedError("this Idempotency-Key was used for another request")
    if found.status is ReceiptStatus.ASKED and seen.now > found.begin_by:
        return None if await rows.give_up(connection, [found.id]) else found
    return found if found.status in {ReceiptStatus.ASKED, ReceiptStatus.RECEIVED} else None


async def settle(uow: UnitOfWork, receipt_id: UUID) -> Receipt:
    """What came of a receipt: one that is asked, and that nobody has begun, is never begun from here on."""
    [settled] = await settle_all(uow.connection, [receipt_id])
    if isinstance(settled, Exception):
        raise settled
    return settled


async def settle_all(connection: AsyncConnection, ids: Sequence[UUID]) -> list[Receipt | Exception]:
    """The same for many, by one statement where all have ended: for each its receipt, or that there is none."""
    found = await rows.find_receipts(connection, ids)
    asked = [one.id for one in found.values() if one.status is ReceiptStatus.ASKED]
    if asked:
        await rows.give_up(connection, asked)
        found |= await rows.find_receipts(connection, asked)
    return [found.get(one) or ReceiptNotFoundError(f"receipt {one} does not exist") for one in ids]


async def get_receipt(uow: UnitOfWork, receipt_id: UUID, user_id: UUID) -> Receipt:
    """The user's receipt. Raises `ReceiptNotFoundError`."""
    found = await rows.find_receipt(uow.reads, receipt_id)
    if found is None or found.user_id != user_id:
        raise ReceiptNotFoundError(f"receipt {receipt_id} does not exist")
    return found
