"""The ledger, whatever is done with it in whatever order: sums exact, nothing negative, one end each."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.wallet.domain import accounts, postings, transfers
from services.wallet.domain.accounts import Account, AccountKind
from services.wallet.domain.fees import FREE, FeeRules, fee_rules
from services.wallet.domain.limits import Limits, Member, Usage, day_of
from services.wallet.domain.postings import BALANCE_MAX, Posting, UnbalancedError, balanced
from services.wallet.domain.quotes import LimitExceededError, Sender, quote
from services.wallet.domain.transfers import Ending, FailureReason, Labels, Transfer, TransferStatus
from shared.errors import BusinessError

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
WORLD, FEES, OWNER = UUID(int=1), UUID(int=2), UUID(int=3)
AMPLE = Limits(10**12, 10**12)
LABELS = Labels("rent", "from Ada")


def account(number: int, balance: int = 0, **changes: object) -> Account:
    made = {"kind": AccountKind.MEMBER, "currency": "KRW", "user_id": OWNER, "limits": AMPLE, "balance": balance}
    return Account(id=UUID(int=number), **{**made, **changes})  # type: ignore[arg-type]


def accepted(sender: Account, receiver: Account, amount: int, fees: FeeRules = FREE) -> tuple[Transfer, Account]:
    who = Sender(sender, Member(user_id=OWNER))
    quoted = quote(who, amount, fees, NOW)
    return transfers.accept(UUID(int=99), who, receiver, quoted, labels=LABELS, now=NOW)


class Ledger(RuleBasedStateMachine):
    """Three users with five accounts, of whom nobody keeps to what they have."""

    members = st.integers(10, 14)
    fees = fee_rules("0:3+0,50:3+100")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.accounts = {UUID(int=n): account(n, user_id=UUID(int=n % 3)) for n in range(10, 15)}
        self.users = {
            UUID(int=n): Member(user_id=UUID(int=n), limit_total=300, free_transfers=n) for n in range(3)
        }
        self.transfers: dict[UUID, Transfer] = {}
        self.postings: list[Posting] = []
        self.ends = 0

    @initialize(paid=st.lists(st.integers(0, 200), min_size=5, max_size=5))
    def pay_in(self, paid: list[int]) -> None:
        for account_id, amount in zip(self.accounts, paid, strict=True):
            if amount:
                self._post(balanced([Posting(WORLD, "KRW", -amount), Posting(account_id, "KRW", amount)]))

    @rule(sender=members, receiver=members, amount=st.integers(1, 150))
    def ask(self, sender: int, receiver: int, amount: int) -> None:
        source, user = self.accounts[UUID(int=sender)], self.users[UUID(int=sender % 3)]
        who = Sender(source, user, self._usage(source))
        quoted = quote(who, amount, self.fees, self.now)
        with suppress(BusinessError):
            transfer, held = transfers.accept(
                UUID(int=1_000 + len(self.transfers)),
                who,
                self.accounts[UUID(int=receiver)],
                quoted,
                labels=LABELS,
                now=self.now,
            )
            self.transfers[transfer.id], self.accounts[held.id] = transfer, held

    @rule(which=st.integers(0, 10), cancels=st.booleans())
    def end(self, which: int, cancels: bool) -> None:
        """Any transfer, ended or not: workers see events twice, and people press twice."""
        if not self.transfers:
            return
        transfer = list(self.transfers.values())[which % len(self.transfers)]
        was_pending = transfer.status is TransferStatus.PENDING
        try:
            if cancels:
                ending = transfers.cancel(transfer, self.accounts[transfer.sender_id], self.now)
            else:
                ending = transfers.execute(transfer, self.accounts, FEES, self.now)
        except transfers.TransferEndedError:
            assert not was_pending
            return
        assert was_pending
        self._end(ending)

    @rule(number=members)
    def freeze_or_thaw(self, number: int) -> None:
        before = self.accounts[UUID(int=number)]
        self.accounts[before.id] = account(
            number, before.balance, held=before.held, user_id=before.user_id, frozen=not before.frozen
        )

    @rule(hours=st.integers(1, 30))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    def _end(self, ending: Ending) -> None:
        self.transfers[ending.transfer.id] = ending.transfer
        self.accounts |= {one.id: one for one in ending.accounts}
        self.postings += ending.postings
        self.ends += 1

    def _post(self, made: tuple[Posting, ...]) -> None:
        self.postings += made
        for one in made:
            if one.account_id in self.accounts:
                self.accounts[one.account_id] = accounts.post(self.accounts[one.account_id], one)

    def _usage(self, source: Account) -> Usage:
        today = [
            one
            for one in self.transfers.values()
            if one.day == day_of(self.now)
            and one.user_id == source.user_id
            and one.status in (TransferStatus.PENDING, TransferStatus.COMPLETED)
        ]
        return Usage(
            sum(one.amount for one in today if one.sender_id == source.id),
            sum(one.amount for one in today),
            sum(one.free for one in today),
        )

    @invariant()
    def the_postings_sum_to_zero(self) -> None:
        assert sum(one.amount for one in self.postings) == 0

    @invariant()
    def every_balance_is_the_sum_of_its_postings_and_what_is_held_is_pending(self) -> None:
        for one in self.accounts.values():
            assert one.balance == sum(made.amount for made in self.postings if made.account_id == one.id)
            pending = [t for t in self.transfers.values() if t.status is TransferStatus.PENDING]
            assert one.held == sum(t.total for t in pending if t.sender_id == one.id)
            assert 0 <= one.held <= one.balance

    @invariant()
    def nobody_sends_more_than_a_day_allows_or_more_for_nothing(self) -> None:
        for user in self.users.values():
            for day in {one.day for one in self.transfers.values()}:
                sent = [
                    one
                    for one in self.transfers.values()
                    if (one.user_id, one.day) == (user.user_id, day)
                    and one.status in (TransferStatus.PENDING, TransferStatus.COMPLETED)
                ]
                assert sum(one.amount for one in sent) <= (user.limit_total or 0)
                assert sum(one.free for one in sent) <= user.free_transfers

    @invariant()
    def each_transfer_ends_once(self) -> None:
        ended = [one for one in self.transfers.values() if one.status is not TransferStatus.PENDING]
        assert len(ended) == self.ends
        assert all(one.ended_at is not None for one in ended)


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(st.lists(st.integers(-5, 5), max_size=4))
def test_only_sets_that_sum_to_zero_and_change_each_account_once_are_postings(amounts: list[int]) -> None:
    made = [Posting(UUID(int=number), "KRW", amount) for number, amount in enumerate(amounts)]
    if amounts and sum(amounts) == 0 and 0 not in amounts:
        assert balanced(made) == tuple(made)
    else:
        with pytest.raises(UnbalancedError):
            balanced(made)


def test_postings_of_two_currencies_and_two_of_one_account_do_not_balance() -> None:
    with pytest.raises(UnbalancedError):
        balanced([Posting(WORLD, "KRW", -1), Posting(FEES, "USD", 1)])
    with pytest.raises(UnbalancedError):
        balanced([Posting(WORLD, "KRW", -1), Posting(WORLD, "KRW", 1)])


def test_an_accepted_transfer_is_what_was_asked_and_ends_at_the_time_of_its_end() -> None:
    asked, sender = accepted(account(10, 1_000), account(11), 600, fee_rules("0:25+0"))
    assert asked == Transfer(
        id=UUID(int=99), sender_id=UUID(int=10), receiver_id=UUID(int=11), user_id=OWNER, currency="KRW",
        amount=600, fee=25, free=False, sender_label="rent", receiver_label="from Ada", day=day_of(NOW),
        status=TransferStatus.PENDING, reason=None, requested_at=NOW, ended_at=None,
    )  # fmt: skip
    later = NOW + timedelta(seconds=1)
    done = transfers.execute(asked, {sender.id: sender, UUID(int=11): account(11)}, FEES, later).transfer
    lost = transfers.execute(
        asked, {sender.id: sender, UUID(int=11): account(11, frozen=True)}, FEES, later
    ).transfer
    back = transfers.cancel(asked, sender, later).transfer
    assert [one.status.value for one in (done, lost, back)] == ["completed", "failed", "cancelled"]
    assert {one.ended_at for one in (done, lost, back)} == {later}
    with pytest.raises(transfers.TransferEndedError, match=f"transfer {asked.id} is failed already"):
        transfers.cancel(lost, sender, later)


def test_a_completed_transfer_takes_the_fee_from_the_sender_to_the_house() -> None:
    transfer, sender = accepted(account(10, 1_000), account(11), 600, fee_rules("0:25+0"))
    assert (sender.balance, sender.held, sender.available) == (1_000, 625, 375)
    ending = transfers.execute(transfer, {sender.id: sender, UUID(int=11): account(11)}, FEES, NOW)
    assert [(one.account_id.int, one.amount) for one in ending.postings] == [(10, -625), (11, 600), (2, 25)]
    assert [(one.balance, one.held) for one in ending.accounts] == [(375, 0), (600, 0)]
    assert (ending.transfer.status, ending.transfer.ended_at) == (TransferStatus.COMPLETED, NOW)


@pytest.mark.parametrize(
    ("sender", "receiver", "reason"),
    [
        ({"frozen": True}, {"frozen": True}, FailureReason.SENDER_FROZEN),
        ({}, {"frozen": True}, FailureReason.RECEIVER_FROZEN),
        ({}, {"balance": BALANCE_MAX - 599}, FailureReason.RECEIVER_FULL),
        ({}, {"balance": BALANCE_MAX - 600}, None),
    ],
)
def test_a_transfer_that_cannot_be_done_any_more_fails_with_a_reason_and_holds_nothing(
    sender: dict[str, object], receiver: dict[str, object], reason: FailureReason | None
) -> None:
    transfer, source = accepted(account(10, 1_000), account(11), 600)
    now = {source.id: account(10, 1_000, held=600, **sender), UUID(int=11): account(11, **receiver)}  # type: ignore[arg-type]
    ending = transfers.execute(transfer, now, FEES, NOW)
    assert ending.transfer.reason is reason
    assert ending.accounts[0].held == 0
    assert (ending.postings == ()) is (reason is not None)


@pytest.mark.parametrize(
    ("receiver", "said", "why"),
    [
        (account(10), "sends nothing to itself", "it is the account that sends"),
        (account(11, kind=AccountKind.FEES), "is the house's", "it is the house's own"),
        (account(11, currency="USD"), "is in USD, not in KRW", "it is in USD, not in KRW"),
    ],
    ids=["itself", "house", "currency"],
)
def test_money_goes_to_another_member_s_account_in_the_same_currency_alone(
    receiver: Account, said: str, why: str
) -> None:
    with pytest.raises(transfers.ReceiverError, match=f"^account {receiver.id} {said}$") as refused:
        accepted(account(10, 1_000), receiver, 1)
    assert refused.value.why == why


@pytest.mark.parametrize("frozen", [10, 11])
def test_nothing_is_accepted_from_or_to_a_frozen_account(frozen: int) -> None:
    sender, receiver = account(10, 1_000, frozen=frozen == 10), account(11, frozen=frozen == 11)
    with pytest.raises(accounts.AccountFrozenError, match=f"^account {UUID(int=frozen)} is frozen$"):
        accepted(sender, receiver, 1)


def test_the_fee_must_be_there_too_and_the_refusal_says_what_is_available() -> None:
    with pytest.raises(accounts.InsufficientFundsError, match="has 600 available, not 601") as refused:
        accepted(account(10, 1_000, held=400), account(11), 600, fee_rules("0:1+0"))
    assert refused.value.available == 600
    assert accepted(account(10, 1_000, held=399), account(11), 600, fee_rules("0:1+0"))[1].available == 0
    with pytest.raises(accounts.InsufficientFundsError, match="has 5 available, not 6") as refused:
        accounts.hold(account(10, 5), 6)
    assert refused.value.available == 5


def test_a_posting_neither_takes_what_is_held_nor_makes_an_account_too_rich() -> None:
    with pytest.raises(accounts.InsufficientFundsError, match="has 6 available, not 7") as refused:
        accounts.post(account(10, 10, held=4), Posting(UUID(int=10), "KRW", -7))
    assert refused.value.available == 6
    with pytest.raises(accounts.BalanceTooLargeError, match=f"would hold more than {BALANCE_MAX}$"):
        accounts.post(account(10, BALANCE_MAX), Posting(UUID(int=10), "KRW", 1))


def test_the_last_unit_that_is_held_can_be_released() -> None:
    assert accounts.release(account(10, 5, held=1), 1).held == 0


def test_a_set_of_postings_that_is_none_is_refused_with_the_reason() -> None:
    with pytest.raises(UnbalancedError, match=r"^1 postings sum to \{'KRW': 3\}$"):
        balanced([Posting(UUID(int=1), "KRW", 3)])
    with pytest.raises(UnbalancedError, match=r"^a set of postings changes each of its accounts once$"):
        balanced([Posting(UUID(int=1), "KRW", 0)])


def test_the_house_has_one_account_of_each_kind_in_each_currency() -> None:
    asked = [(kind, unit) for kind in (AccountKind.WORLD, AccountKind.FEES) for unit in ("KRW", "EUR")]
    assert len({accounts.house_account_id(*one) for one in asked}) == len(asked)
    assert accounts.house_account_id(*asked[0]) == accounts.house_account_id(*asked[0])


def test_the_house_s_accounts_keep_no_balance_that_all_would_wait_for() -> None:
    house = account(1, kind=AccountKind.WORLD)
    assert accounts.post(house, Posting(house.id, "KRW", -(10**15))) == house


def test_a_limit_refuses_before_funds_do() -> None:
    with pytest.raises(LimitExceededError) as refused:
        accepted(account(10, limits=Limits(99, 1_000)), account(11), 100)
    assert refused.value.left == 99
    assert postings.AMOUNT_MAX < BALANCE_MAX
