"""Distributions: how an amount is split, and who may take from it, whatever is tried."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.wallet.domain import distributions
from services.wallet.domain.distributions import (
    OPEN_FOR,
    PEOPLE_MAX,
    SHOWN_FOR,
    AlreadyReceivedError,
    Distribution,
    DistributionClosedError,
    DistributionNotFoundError,
    NotForGiverError,
    NothingLeftError,
    Share,
    Split,
    TooFewUnitsError,
    give_back,
    receive,
    shown_to,
    split_even,
    split_in,
    split_random,
)
from services.wallet.domain.postings import AMOUNT_MAX
from shared.errors import BusinessError

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
GIVER = UUID(int=1)
MOMENT = timedelta(microseconds=1)


def scattered(*amounts: int) -> Distribution:
    return Distribution(
        id=UUID(int=9),
        token="k7m2xq9d",
        room_id="room",
        giver_id=GIVER,
        account_id=UUID(int=8),
        currency="KRW",
        amount=sum(amounts),
        people=len(amounts),
        split=Split.EVEN,
        day=NOW.date(),
        shares=tuple(Share(amount, number=number) for number, amount in enumerate(amounts)),
        opened_at=NOW,
    )


@given(st.data(), st.integers(1, PEOPLE_MAX), st.integers(0, 2**32))
def test_either_split_gives_everybody_something_and_sums_to_the_amount(
    data: st.DataObject, people: int, seed: int
) -> None:
    amount = data.draw(st.integers(people, AMOUNT_MAX) | st.integers(people, people + 3))
    for shares in (
        split_even(amount, people),
        split_random(amount, people, random.Random(seed).sample),
    ):
        assert (sum(shares), len(shares)) == (amount, people)
        assert min(shares) >= 1
    even = split_even(amount, people)
    assert max(even) - min(even) <= 1


def test_a_distribution_is_split_as_it_was_asked_and_its_shares_are_numbered() -> None:
    by_split = {split: split_in(split, 1_000, 3, random.Random(7).sample) for split in Split}
    assert by_split[Split.EVEN] == (Share(334, number=0), Share(333, number=1), Share(333, number=2))
    assert [share.amount for share in by_split[Split.RANDOM]] == split_random(1_000, 3, random.Random(7).sample)
    assert by_split[Split.RANDOM] != by_split[Split.EVEN]


def test_the_largest_amount_can_be_split() -> None:
    assert split_even(AMOUNT_MAX, 1) == [AMOUNT_MAX]


def test_every_random_split_is_as_likely_as_every_other() -> None:
    sample = random.Random(7).sample
    seen = Counter(tuple(split_random(5, 3, sample)) for _ in range(3_000))
    assert set(seen) == {(1, 1, 3), (1, 3, 1), (3, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 1)}
    assert all(400 < times < 600 for times in seen.values())


@pytest.mark.parametrize(
    ("amount", "people"), [(0, 1), (2, 3), (5, 0), (PEOPLE_MAX + 1, PEOPLE_MAX + 1), (AMOUNT_MAX + 1, 2)]
)
def test_what_cannot_be_split_is_refused_either_way(amount: int, people: int) -> None:
    with pytest.raises(TooFewUnitsError, match=f"^{amount} cannot be split among {people}: 1 to"):
        split_even(amount, people)
    with pytest.raises(TooFewUnitsError):
        split_random(amount, people, random.Random(1).sample)


receipts = st.tuples(st.integers(1, 6), st.sampled_from(["room", "hall"]), st.integers(-1, 1))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.lists(receipts, max_size=12))
def test_whoever_asks_and_when_each_share_is_taken_once_and_the_rest_goes_back(
    amounts: list[int], asked: list[tuple[int, str, int]]
) -> None:
    current, taken = scattered(*amounts), dict[UUID, int]()
    for user, room, late in asked:
        now = NOW + OPEN_FOR + late * MOMENT
        with suppress(BusinessError):
            current, share = receive(current, UUID(int=user), room, now)
            assert (room, late) == ("room", -1)
            assert UUID(int=user) not in {GIVER, *taken}
            taken[UUID(int=user)] = share.amount
    assert sum(taken.values()) + current.left == current.amount == sum(amounts)
    after, back = give_back(current, NOW + OPEN_FOR)
    assert back == sum(amounts) - sum(taken.values())
    assert (after.left, after.given_back, after.closed_at) == (0, back, NOW + OPEN_FOR)
    with pytest.raises(DistributionClosedError):
        give_back(after, NOW + OPEN_FOR)


def test_each_refusal_says_what_it_is() -> None:
    once, share = receive(scattered(3, 4), UUID(int=2), "room", NOW)
    assert share == Share(3, UUID(int=2), 0, NOW)
    with pytest.raises(DistributionNotFoundError, match=r"^there is no such distribution in this room$"):
        receive(once, UUID(int=3), "hall", NOW)
    with pytest.raises(NotForGiverError, match=r"^who gives does not take$"):
        receive(once, GIVER, "room", NOW)
    with pytest.raises(AlreadyReceivedError, match=r"^this user has a share already, of 3$") as again:
        receive(once, UUID(int=2), "room", NOW + OPEN_FOR)
    assert again.value.amount == 3
    with pytest.raises(DistributionClosedError, match=r"^it is over: what was left went back to the giver$"):
        receive(once, UUID(int=3), "room", NOW + OPEN_FOR)
    empty, _ = receive(once, UUID(int=3), "room", NOW)
    with pytest.raises(NothingLeftError, match=r"^there is nothing left: every share is taken$"):
        receive(empty, UUID(int=4), "room", NOW)
    with pytest.raises(DistributionClosedError, match=r"^it is open still, or closed already$"):
        give_back(empty, NOW + OPEN_FOR - MOMENT)


def test_its_giver_alone_sees_it_and_for_seven_days() -> None:
    seen = scattered(1)
    assert shown_to(seen, GIVER, NOW + SHOWN_FOR - MOMENT) is seen
    for user, now in ((GIVER, NOW + SHOWN_FOR), (UUID(int=2), NOW)):
        with pytest.raises(DistributionNotFoundError, match=r"^there is none with this token, or no longer, or"):
            shown_to(seen, user, now)
    assert distributions.is_open(seen, NOW)
