"""Receipts, whatever is asked for in whatever order: each share is one user's, and no money is made or lost."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.wallet.domain.accounts import Account, AccountKind, post
from services.wallet.domain.distributions import (
    LETTERS,
    OPEN_FOR,
    TOKEN_PATTERN,
    Distribution,
    DistributionClosedError,
    Split,
    give_back,
    new_token,
    split_in,
)
from services.wallet.domain.limits import Limits
from services.wallet.domain.postings import BALANCE_MAX, Posting
from services.wallet.domain.receipts import BEGIN_WITHIN, Receipt, ReceiptStatus, Refusal, take

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
GIVER, OWN = UUID(int=1), UUID(int=9)


def account(
    key: UUID, balance: int = 0, *, kind: AccountKind = AccountKind.MEMBER, frozen: bool = False
) -> Account:
    return Account(
        id=key, kind=kind, currency="KRW", user_id=key, limits=Limits(0, 0), balance=balance, frozen=frozen
    )


def opened(amount: int, people: int, split: Split) -> Distribution:
    return Distribution(
        id=OWN,
        token="k7m2xq9d",
        room_id="room",
        giver_id=GIVER,
        account_id=GIVER,
        currency="KRW",
        amount=amount,
        people=people,
        split=split,
        day=NOW.date(),
        opened_at=NOW,
        shares=split_in(split, amount, people, random.Random(1).sample),
    )


def asked(number: int, user: int, at: datetime) -> Receipt:
    return Receipt(
        id=UUID(int=number),
        user_id=UUID(int=user),
        room_id="room",
        token="k7m2xq9d",
        distribution_id=OWN,
        account_id=UUID(int=user),
        currency="KRW",
        key=None,
        asked_at=at,
        begin_by=at + BEGIN_WITHIN,
    )


class Room(RuleBasedStateMachine):
    """Six users ask for shares of one distribution, as often and as late as they like."""

    users = st.integers(2, 7)

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.receipts: dict[UUID, Receipt] = {}
        self.accounts = {UUID(int=user): account(UUID(int=user)) for user in range(1, 8)}

    @initialize(more=st.integers(0, 20), people=st.integers(1, 4), split=st.sampled_from(Split))
    def open(self, more: int, people: int, split: Split) -> None:
        self.distribution = opened(people + more, people, split)
        self.accounts[OWN] = account(OWN, people + more, kind=AccountKind.DISTRIBUTION)

    @rule(user=users)
    def ask(self, user: int) -> None:
        new = asked(100 + len(self.receipts), user, self.now)
        self.receipts[new.id] = new

    @rule(which=st.integers(0, 30))
    def decide(self, which: int) -> None:
        """Whichever was asked for, in no order."""
        waiting = [one for one in self.receipts.values() if one.status is ReceiptStatus.ASKED]
        if not waiting:
            return
        outcome = take(waiting[which % len(waiting)], self.distribution, self.accounts, self.now)
        ended = self.receipts[outcome.receipt.id] = outcome.receipt
        assert (ended.status is ReceiptStatus.NOT_BEGUN) == (self.now > ended.begin_by)
        assert (outcome.share is not None) == (ended.status is ReceiptStatus.RECEIVED) == bool(outcome.postings)
        if ended.status is ReceiptStatus.RECEIVED:
            assert self.now < NOW + OPEN_FOR
            assert not self.accounts[ended.account_id].frozen
        self.distribution = outcome.distribution
        self.accounts |= {one.id: one for one in outcome.accounts}

    @rule(user=users)
    def freeze_or_thaw(self, user: int) -> None:
        before = self.accounts[UUID(int=user)]
        self.accounts[before.id] = account(before.id, before.balance, frozen=not before.frozen)

    @rule(seconds=st.sampled_from([1, 7, 9, 300]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def close(self) -> None:
        if self.now < NOW + OPEN_FOR or self.distribution.closed_at is not None:
            with pytest.raises(DistributionClosedError):
                give_back(self.distribution, self.now)
            return
        self.distribution, left = give_back(self.distribution, self.now)
        for key, amount in ((OWN, -left), (GIVER, left)):
            self.accounts[key] = post(self.accounts[key], Posting(key, "KRW", amount))

    @invariant()
    def no_money_is_made_or_lost(self) -> None:
        assert sum(one.balance for one in self.accounts.values()) == self.distribution.amount
        assert self.accounts[OWN].balance == self.distribution.left

    @invariant()
    def each_share_is_one_user_s_and_each_received_receipt_s(self) -> None:
        taken = {one.receiver_id: one.amount for one in self.distribution.shares if one.receiver_id}
        received = [one for one in self.receipts.values() if one.status is ReceiptStatus.RECEIVED]
        assert {one.user_id: one.amount for one in received} == taken
        assert len(received) == len(taken)
        assert {
            key.int: one.balance for key, one in self.accounts.items() if one.balance and key.int in range(2, 8)
        } == {key.int: amount for key, amount in taken.items()}


TestRoom = Room.TestCase
TestRoom.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_an_account_that_is_frozen_or_full_gets_no_share_and_another_may_have_it() -> None:
    distribution = opened(2, 2, Split.EVEN)
    accounts = {
        OWN: account(OWN, 2, kind=AccountKind.DISTRIBUTION),
        UUID(int=2): account(UUID(int=2), frozen=True),
        UUID(int=3): account(UUID(int=3), BALANCE_MAX),
        UUID(int=4): account(UUID(int=4)),
    }
    reasons = {}
    for user in (2, 3, 4):
        outcome = take(asked(user, user, NOW), distribution, accounts, NOW)
        distribution = outcome.distribution
        reasons[user] = outcome.receipt.reason
    assert reasons == {2: Refusal.ACCOUNT_FROZEN, 3: Refusal.ACCOUNT_FULL, 4: None}
    assert distribution.left == 1


def test_a_receipt_ends_at_the_time_of_its_end_and_the_last_one_closes_the_distribution() -> None:
    distribution, funds = opened(5, 2, Split.EVEN), account(OWN, 5, kind=AccountKind.DISTRIBUTION)
    accounts = {OWN: funds, **{UUID(int=user): account(UUID(int=user)) for user in (2, 3)}}
    at_last = NOW + BEGIN_WITHIN
    ended = []
    for user, at in ((2, at_last), (2, at_last), (3, at_last), (3, at_last + timedelta(microseconds=1))):
        outcome = take(asked(user, user, NOW), distribution, accounts, at)
        distribution = outcome.distribution
        accounts |= {one.id: one for one in outcome.accounts}
        ended.append((outcome.receipt.status.value, outcome.receipt.ended_at == at, distribution.closed_at == at))
    assert ended == [
        ("received", True, False),
        ("refused", True, False),
        ("received", True, True),
        ("not_begun", True, False),
    ]


def test_a_token_is_eight_letters_that_nobody_mistakes() -> None:
    assert not set(LETTERS) & set("01ilo")
    assert len(set(LETTERS)) == len(LETTERS) == 31
    token = new_token(random.Random(1).choice)
    assert re.fullmatch(TOKEN_PATTERN, token)
