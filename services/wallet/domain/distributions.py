"""A distribution: an amount split into shares, one for each of the first who ask, in one room, for ten minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Final
from uuid import UUID

from services.wallet.domain.postings import AMOUNT_MAX
from shared.errors import BusinessError

PEOPLE_MAX: Final = 1_000
OPEN_FOR: Final = timedelta(minutes=10)
SHOWN_FOR: Final = timedelta(days=7)
TOKEN_LENGTH: Final = 8
LETTERS: Final = "23456789abcdefghjkmnpqrstuvwxyz"
"""None that looks like another; eight of them are 31⁸ tokens."""
TOKEN_PATTERN: Final = rf"^[{LETTERS}]{{{TOKEN_LENGTH}}}$"
ROOM_PATTERN: Final = r"^[!-~]{1,100}$"

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
    """Its ten minutes are over."""


class NothingLeftError(BusinessError):
    """Every share is taken."""


class NotForGiverError(BusinessError):
    """Who gives does not take."""


class AlreadyReceivedError(BusinessError):
    """The user has a share already; `amount` is its, in the currency's minor unit."""

    def __init__(self, message: str, *, amount: int) -> None:
        super().__init__(message)
        self.amount = amount


@dataclass(frozen=True, slots=True)
class Share:
    """`amount` in the currency's minor unit, and who took it when; None while nobody has."""

    amount: int
    receiver_id: UUID | None = None
    number: int = 0
    taken_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What a giver scattered in a room: `amount`, in the minor unit of `currency`.

    Its money is in an account of its own, which has its id, until it is taken or given back. `shares` are all of
    them, or where it was looked up for some who ask, at least those that they have or may get. It is closed when
    the last share is taken, or what was left is given back. `day` is Seoul's.
    """

    id: UUID
    token: str
    room_id: str
    giver_id: UUID
    account_id: UUID
    """The giver's account that it came from, and to which goes back what nobody takes."""
    currency: str
    amount: int
    people: int
    split: Split
    day: date
    opened_at: datetime
    shares: tuple[Share, ...] = ()
    closed_at: datetime | None = None
    given_back: int = 0

    @property
    def closes_at(self) -> datetime:
        """From then on nothing can be taken."""
        return self.opened_at + OPEN_FOR

    @property
    def left(self) -> int:
        """What nobody has taken and the giver has not got back, of the shares that are looked up."""
        return 0 if self.closed_at else sum(share.amount for share in self.shares if share.receiver_id is None)


def split_in(split: Split, amount: int, people: int, sample: Sample) -> tuple[Share, ...]:
    """The shares, of which nobody has one. Raises `TooFewUnitsError`."""
    amounts = split_even(amount, people) if split is Split.EVEN else split_random(amount, people, sample)
    return tuple(Share(one, number=number) for number, one in enumerate(amounts))


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


def new_token(choose: Callable[[str], str]) -> str:
    """A token whose letters `choose` picks, each one of those that it is given."""
    return "".join(choose(LETTERS) for _ in range(TOKEN_LENGTH))


def is_open(distribution: Distribution, now: datetime) -> bool:
    """It can be taken from: its ten minutes are not over."""
    return distribution.closed_at is None and now < distribution.closes_at


def receive(distribution: Distribution, user_id: UUID, room_id: str, now: datetime) -> tuple[Distribution, Share]:
    """The distribution after the user took the next share, and that share.

    Raises `DistributionNotFoundError`, `NotForGiverError`, `AlreadyReceivedError`, `NothingLeftError`,
    `DistributionClosedError`.
    """
    if room_id != distribution.room_id:
        raise DistributionNotFoundError("there is no such distribution in this room")
    if user_id == distribution.giver_id:
        raise NotForGiverError("who gives does not take")
    for share in distribution.shares:
        if share.receiver_id == user_id:
            raise AlreadyReceivedError(f"this user has a share already, of {share.amount}", amount=share.amount)
    free = [place for place, share in enumerate(distribution.shares) if share.receiver_id is None]
    if not free:
        raise NothingLeftError("there is nothing left: every share is taken")
    if not is_open(distribution, now):
        raise DistributionClosedError("it is over: what was left went back to the giver")
    place = free[0]
    taken = replace(distribution.shares[place], receiver_id=user_id, taken_at=now)
    shares = (*distribution.shares[:place], taken, *distribution.shares[place + 1 :])
    return replace(distribution, shares=shares), taken


def give_back(distribution: Distribution, now: datetime) -> tuple[Distribution, int]:
    """The distribution after its end, and how much goes back to the giver.

    Raises `DistributionClosedError` while it is open, and when it is closed already.
    """
    if now < distribution.closes_at or distribution.closed_at is not None:
        raise DistributionClosedError("it is open still, or closed already")
    left = distribution.left
    return replace(distribution, closed_at=now, given_back=left), left


def shown_to(distribution: Distribution, user_id: UUID, now: datetime) -> Distribution:
    """The distribution, for its giver, for seven days. Raises `DistributionNotFoundError`."""
    if user_id != distribution.giver_id or now >= distribution.opened_at + SHOWN_FOR:
        raise DistributionNotFoundError("there is none with this token, or no longer, or it is another's")
    return distribution
