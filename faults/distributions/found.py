"""Reads from a wallet's database what is there of the distributions that were given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from faults.beside import plain_uuid
from faults.distributions.checker import Found, Given, GivenFound, ReceiptFound, ShareFound

Query = Callable[..., Awaitable[Sequence[Any]]]
"""Rows of asyncpg's for a statement."""

_GIVEN = "select room_id, giver_id, amount, people, given_back, closed_at is not null from distribution"
_SHARES = """
select d.room_id, s.amount, s.receiver_id, s.receipt_id
  from distribution_share s join distribution d on d.id = s.distribution_id
"""
_RECEIPTS = "select room_id, user_id, id, status, amount from receipt order by asked_at"


async def read(query: Query) -> Found:
    """All distributions, shares and receipts: of one moment, if `query` looks at a snapshot."""
    given = [
        GivenFound(room_id, Given(plain_uuid(giver_id), amount, people), given_back, closed)
        for room_id, giver_id, amount, people, given_back, closed in await query(_GIVEN)
    ]
    shares = [
        ShareFound(
            room_id,
            amount,
            None if receiver_id is None else plain_uuid(receiver_id),
            None if receipt_id is None else plain_uuid(receipt_id),
        )
        for room_id, amount, receiver_id, receipt_id in await query(_SHARES)
    ]
    receipts = [
        ((room_id, plain_uuid(user_id)), ReceiptFound(plain_uuid(id_), status, amount))
        for room_id, user_id, id_, status, amount in await query(_RECEIPTS)
    ]
    return Found(given, shares, receipts)
