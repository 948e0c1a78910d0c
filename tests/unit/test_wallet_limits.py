"""Limits, exceptions, fees and quotes of transfers."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.wallet.domain.accounts import Account, AccountKind
from services.wallet.domain.fees import BASIS_POINT, FREE, FeeBand, fee_rules
from services.wallet.domain.limits import LimitException, LimitKind, Limits, Member, Usage, day_of, limits_at
from services.wallet.domain.postings import AMOUNT_MAX
from services.wallet.domain.quotes import (
    FeeChangedError,
    LimitExceededError,
    MemberInactiveError,
    Quote,
    Sender,
    quote,
    require_agreed,
    require_allowed,
)
from shared.errors import ConfigurationError

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
USER = UUID(int=3)
HOUR = timedelta(hours=1)
ACCOUNT = Account(
    id=UUID(int=10),
    kind=AccountKind.MEMBER,
    currency="KRW",
    user_id=USER,
    limits=Limits(1_000, 3_000),
    balance=10_000,
)
FEES = fee_rules("0:0+0,100:5+0,1000:5+25")


def sender(usage: Usage | None = None, **member: object) -> Sender:
    return Sender(ACCOUNT, Member(user_id=USER, **member), usage or Usage())  # type: ignore[arg-type]


def quoted(amount: int, usage: Usage | None = None, **member: object) -> Quote:
    return quote(sender(usage, **member), amount, FEES, NOW)


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2026, 1, 31, 14, 59, 59, tzinfo=UTC), date(2026, 1, 31)),
        (datetime(2026, 1, 31, 15, 0, tzinfo=UTC), date(2026, 2, 1)),
    ],
)
def test_a_day_begins_at_midnight_in_seoul(moment: datetime, day: date) -> None:
    assert day_of(moment) == day


def test_the_newest_exception_that_is_in_force_replaces_its_limit_until_its_end() -> None:
    def exception(kind: LimitKind, amount: int, granted: int, ends: int) -> LimitException:
        return LimitException(kind, amount, NOW + granted * HOUR, NOW + ends * HOUR)

    own = Limits(1_000, 3_000)
    wide = exception(LimitKind.ONE_TIME, 5_000, -2, 1)
    narrow = exception(LimitKind.ONE_TIME, 10, -1, 0)
    daily = exception(LimitKind.DAILY, 7, 0, 2)
    given = [narrow, daily, wide]
    assert limits_at(own, given, NOW - 2 * HOUR) == Limits(5_000, 3_000)
    assert limits_at(own, given, NOW - HOUR) == Limits(10, 3_000)
    assert limits_at(own, given, NOW) == Limits(5_000, 7)
    assert limits_at(own, given, NOW + HOUR) == Limits(1_000, 7)
    assert limits_at(own, given, NOW + 2 * HOUR) == own


@pytest.mark.parametrize(("amount", "fee"), [(1, 0), (99, 0), (100, 5), (999, 5), (1_000, 7), (10_000, 30)])
def test_a_fee_is_that_of_the_band_that_the_amount_is_in(amount: int, fee: int) -> None:
    assert FEES.fee_of(amount) == fee


@given(st.integers(1, AMOUNT_MAX), st.integers(0, 10**6), st.integers(0, BASIS_POINT))
def test_a_fee_is_never_more_than_its_rule_says_and_never_negative(amount: int, fixed: int, points: int) -> None:
    fee = fee_rules(f"0:{fixed}+{points}").fee_of(amount)
    assert fixed <= fee <= fixed + amount
    assert (fee - fixed) * BASIS_POINT <= amount * points < (fee - fixed + 1) * BASIS_POINT


BANDS = "fee rules are bands of rising amounts, the first from 0"
TOO_MUCH = f"a fee is at most {AMOUNT_MAX} and the amount"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no fee band: AMOUNT:FEE+BASIS_POINTS"),
        ("1:0+0", BANDS),
        ("0:0", "'0:0' is no fee band: AMOUNT:FEE+BASIS_POINTS"),
        ("0:0+0,0:1+0", BANDS),
        ("0:0+0,9:0+0,5:0+0", BANDS),
        ("0:0+10001", TOO_MUCH),
        ("0:9999999999999+0", TOO_MUCH),
        ("0:-1+0", "'0:-1+0' is no fee band: AMOUNT:FEE+BASIS_POINTS"),
        ("x", "'x' is no fee band: AMOUNT:FEE+BASIS_POINTS"),
    ],
)
def test_rules_that_leave_a_question_are_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(said)}$"):
        fee_rules(text)


def test_rules_are_written_with_commas_up_to_the_largest_fee() -> None:
    assert fee_rules(f"0:0+0, 5:{AMOUNT_MAX}+{BASIS_POINT}").bands == (
        FeeBand(0, 0),
        FeeBand(5, AMOUNT_MAX, BASIS_POINT),
    )


def test_an_exception_of_the_account_is_in_its_quote() -> None:
    wider = LimitException(LimitKind.ONE_TIME, 2_000, NOW, NOW + HOUR)
    assert quote(Sender(ACCOUNT, Member(user_id=USER), Usage(), (wider,)), 1, FEES, NOW).one_time_limit == 2_000


def test_a_quote_says_the_fee_and_what_is_left() -> None:
    usage = Usage(sent_by_account=400, sent_by_user=900, free_transfers=2)
    assert quoted(500, usage, limit_total=2_000, free_transfers=2) == Quote(
        amount=500,
        fee=5,
        free=False,
        available=10_000,
        one_time_limit=1_000,
        left_today=2_600,
        left_of_total=1_100,
        free_left=0,
    )
    assert quoted(500).left_of_total is None
    assert quoted(500).total == 505


def test_a_free_transfer_is_used_up_only_where_there_is_a_fee() -> None:
    assert (quoted(500, free_transfers=1).free, quoted(500, free_transfers=1).fee) == (True, 0)
    one = fee_rules("0:1+0")
    assert quote(Sender(ACCOUNT, Member(user_id=USER, free_transfers=1)), AMOUNT_MAX, one, NOW).free
    assert (quoted(50, free_transfers=1).free, quoted(50, free_transfers=1).fee) == (False, 0)
    assert quoted(500, Usage(free_transfers=3), free_transfers=1).free_left == 0


@pytest.mark.parametrize(
    ("amount", "usage", "total", "left", "what"),
    [
        (1_001, Usage(), None, 1_000, "in one transfer"),
        (501, Usage(sent_by_account=2_500), None, 500, "from this account today"),
        (301, Usage(sent_by_account=100, sent_by_user=700), 1_000, 300, "from all accounts today"),
        (1, Usage(sent_by_account=9_000), None, 0, "from this account today"),
        (1, Usage(sent_by_user=9_000), 1_000, 0, "from all accounts today"),
    ],
)
def test_each_limit_allows_its_last_unit_and_no_more(
    amount: int, usage: Usage, total: int | None, left: int, what: str
) -> None:
    who = sender(usage, limit_total=total)
    with pytest.raises(LimitExceededError) as refused:
        require_allowed(who, quoted(amount, usage, limit_total=total))
    assert (refused.value.left, refused.value.what) == (left, what)
    assert str(refused.value) == f"{left} may be sent {what}, not {amount}"
    if left:
        require_allowed(who, quoted(left, usage, limit_total=total))


def test_another_fee_than_was_agreed_to_is_refused() -> None:
    for agreed in (5, None):
        require_agreed(quoted(100), agreed)
    with pytest.raises(FeeChangedError, match=r"^the fee is 5 now, not 4$"):
        require_agreed(quoted(100), 4)


def test_a_deactivated_user_sends_nothing() -> None:
    with pytest.raises(MemberInactiveError, match=f"^user {USER} is deactivated$"):
        require_allowed(sender(active=False), quoted(1))


def test_without_rules_everything_is_free() -> None:
    assert fee_rules("0:0+0") == FREE
    assert FREE.fee_of(AMOUNT_MAX) == 0
