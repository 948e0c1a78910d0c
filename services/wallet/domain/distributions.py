"""A distribution: an amount split into shares, one for each of the first who ask, in one room, for ten minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Final
from uuid import UUID

from services.wallet.domain.postings import AMOUNT_MAX
from shared.errors import BusinessError

PEOPLE_MAX: Final = 1_000
OPEN_FOR: Final = timedelta(minutes=10)
SHOWN_FOR: Final = timedelta(days=7)

Sample = Callable[[range, int], Sequence[int]]
"""Draws so many different numbers of a range, like `random.SystemRandom().sample`."""


class Split(StrEnum):
    RANDOM = "random"
    EVEN = "even"


class TooFewUnitsError(BusinessError):
    """There is not one minor unit for everybody, or more people or money than a distribution takes."""


class DistributionNotFoundError(BusinessError):
    """There is none with this token in this room, or not for this user, or no longer."""


class DistributionClosedError(BusinessError):
    """Ten minutes are over, or every share is taken."""


class NotForGiverError(BusinessError):
    """Who gives does not take."""


class AlreadyReceivedError(BusinessError):
    """The user has a share already; `amount` is its, in the currency's minor unit."""

    def __init__(self, message: str, *, amount: int) -> None:
        super().__init__(message)
        self.amount = amount


@dataclass(frozen=True, slots=True)
class Share:
    """`amount` in the currency's minor unit, and who took it; None while nobody has."""

    amount: int
    receiver_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What a giver scattered in a room. Its money is in an account of its own until it is taken or given back."""

    id: UUID
    giver_id: UUID
    room_id: str
    shares: tuple[Share, ...]
    opened_at: datetime
    given_back: bool = False

    @property
    def amount(self) -> int:
        return sum(share.amount for share in self.shares)

    @property
    def left(self) -> int:
        """What nobody has taken and the giver has not got back."""
        return 0 if self.given_back else sum(share.amount for share in self.shares if share.receiver_id is None)


def split_even(amount: int, people: int) -> list[int]:
    """`people` shares of `amount` that differ by 1 at most, the larger first. Raises `TooFewUnitsError`."""
    _require_splittable(amount, people)
    share, more = divmod(amount, people)
    return [share + 1] * more + [share] * (people - more)


def split_random(amount: int, people: int, sample: Sample) -> list[int]:
    """`people` shares of `amount`, each of 1 at least, every way of splitting as likely as every other.

    They lie between `people - 1` different cuts of the amount, drawn by `sample`. Raises `TooFewUnitsError`.
    """
    _require_splittable(amount, people)
    cuts = [0, *sorted(sample(range(1, amount), people - 1)), amount]
    return [above - below for below, above in pairwise(cuts)]


def _require_splittable(amount: int, people: int) -> None:
    if not 1 <= people <= min(PEOPLE_MAX, amount) or amount > AMOUNT_MAX:
        raise TooFewUnitsError(f"{amount} cannot be split among {people}: 1 to {PEOPLE_MAX}, a unit each")


def is_open(distribution: Distribution, now: datetime) -> bool:
    """It can be taken from: its ten minutes are not over."""
    return now < distribution.opened_at + OPEN_FOR and not distribution.given_back


def receive(distribution: Distribution, user_id: UUID, room_id: str, now: datetime) -> tuple[Distribution, Share]:
    """The distribution after the user took the next share, and that share.

    Raises `DistributionNotFoundError`, `NotForGiverError`, `AlreadyReceivedError`, `DistributionClosedError`.
    """
    if room_id != distribution.room_id:
        raise DistributionNotFoundError("there is no such distribution in this room")
    if user_id == distribution.giver_id:
        raise NotForGiverError("who gives does not take")
    for share in distribution.shares:
        if share.receiver_id == user_id:
            raise AlreadyReceivedError("this user has a share already", amount=share.amount)
    free = [number for number, share in enumerate(distribution.shares) if share.receiver_id is None]
    if not free or not is_open(distribution, now):
        raise DistributionClosedError("it is over, or every share is taken")
    number = free[0]
    taken = replace(distribution.shares[number], receiver_id=user_id)
    shares = (*distribution.shares[:number], taken, *distribution.shares[number + 1 :])
    return replace(distribution, shares=shares), taken


def give_back(distribution: Distribution, now: datetime) -> tuple[Distribution, int]:
    """The distribution after its end, and how much goes back to the giver.

    Raises `DistributionClosedError` while it is open, and when it was given back already.
    """
    if is_open(distribution, now) or distribution.given_back:
        raise DistributionClosedError("it is open still, or given back already")
    return replace(distribution, given_back=True), distribution.left


def shown_to(distribution: Distribution, user_id: UUID, now: datetime) -> Distribution:
    """The distribution, for its giver, for seven days. Raises `DistributionNotFoundError`."""
    if user_id != distribution.giver_id or now >= distribution.opened_at + SHOWN_FOR:
        raise DistributionNotFoundError("there is none with this token, or no longer, or it is another's")
    return distribution
