"""Double entry: money moves by sets of postings that sum to zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from shared.errors import BusinessError

AMOUNT_MAX: Final = 10**12
"""The most that one transfer moves, in the minor unit of its currency."""
BALANCE_MAX: Final = 2**53 - 1
"""The most that an account holds: exact in a bigint, and in the doubles that JSON readers use."""


class UnbalancedError(BusinessError):
    """These postings would make or destroy money."""


@dataclass(frozen=True, slots=True)
class Posting:
    """A change of one account, in the minor unit of `currency`; `amount` is negative where money leaves it."""

    account_id: UUID
    currency: str
    amount: int


def balanced(postings: Iterable[Posting]) -> tuple[Posting, ...]:
    """The postings as one set, which sums to zero in each currency.

    Raises `UnbalancedError` for any other, for none, for one of zero, and for two of the same account.
    """
    made = tuple(postings)
    sums: Counter[str] = Counter()
    for posting in made:
        sums[posting.currency] += posting.amount
    if not made or any(sums.values()):
        raise UnbalancedError(f"{len(made)} postings sum to {dict(sums)}")
    if not all(posting.amount for posting in made) or len({one.account_id for one in made}) < len(made):
        raise UnbalancedError("a set of postings changes each of its accounts once")
    return made
