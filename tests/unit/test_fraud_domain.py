"""How orders are judged, and what a threat-intelligence list may say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fraud import domain
from services.fraud.domain import Facts, NotAListError, Policy
from services.fraud.handlers.judging import counted
from services.fraud.store import Subject

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
POLICY = Policy(
    amounts={"KRW": 1_500_000},
    amount_default=100_000,
    velocity_orders=5,
    velocity_window_s=3_600.0,
    new_user_s=86_400.0,
    review_score=40,
    reject_score=80,
)
CLEAN = Facts(
    currency="EUR",
    amount=25_00,
    placed_at=NOW,
    registered_at=NOW - timedelta(days=30),
    earlier_orders=0,
    listed_ip=False,
    listed_address=False,
)


@pytest.mark.parametrize(
    ("change", "rules", "score", "verdict"),
    [
        ({}, [], 0, "approve"),
        ({"amount": 99_999}, [], 0, "approve"),
        ({"amount": 100_000}, ["amount"], 40, "review"),
        ({"amount": 999_999}, ["amount"], 40, "review"),
        ({"amount": 1_000_000}, ["amount"], 80, "reject"),
        ({"amount": 1_499_999, "currency": "KRW"}, [], 0, "approve"),
        ({"amount": 1_500_000, "currency": "KRW"}, ["amount"], 40, "review"),
        ({"earlier_orders": 4}, [], 0, "approve"),
        ({"earlier_orders": 5}, ["velocity"], 40, "review"),
        ({"registered_at": NOW - timedelta(days=1)}, [], 0, "approve"),
        ({"registered_at": NOW - timedelta(hours=23)}, ["new_user"], 20, "approve"),
        ({"registered_at": None}, ["new_user"], 20, "approve"),
        ({"listed_ip": True}, ["listed_ip"], 60, "review"),
        ({"listed_address": True}, ["listed_address"], 60, "review"),
        ({"listed_address": True, "registered_at": None}, ["new_user", "listed_address"], 80, "reject"),
        ({"listed_address": True, "listed_ip": True}, ["listed_ip", "listed_address"], 100, "reject"),
    ],
)
def test_each_rule_applies_from_its_limit_on_and_says_so(
    change: dict[str, object], rules: list[str], score: int, verdict: str
) -> None:
    found = domain.evaluate(replace(CLEAN, **change), POLICY)  # type: ignore[arg-type]
    assert ([reason.rule for reason in found.reasons], found.score, found.verdict) == (rules, score, verdict)
    assert all(reason.said for reason in found.reasons)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"amount": 100_000}, "the amount is at least 100000 EUR minor units"),
        ({"amount": 15_000_000, "currency": "KRW"}, "the amount is at least 15000000 KRW minor units"),
        ({"earlier_orders": 7}, "at least 5 orders of this user in the 3600 s before"),
        ({"registered_at": NOW}, "the user registered less than 86400 s before"),
        ({"registered_at": None}, "nothing is heard of this user yet"),
        ({"listed_ip": True}, "the IP address is listed as a threat"),
        ({"listed_address": True}, "the e-mail address is listed as a threat"),
    ],
)
def test_a_reason_is_a_sentence(change: dict[str, object], said: str) -> None:
    [reason] = domain.evaluate(replace(CLEAN, **change), POLICY).reasons  # type: ignore[arg-type]
    assert reason.said == said


facts = st.builds(
    Facts,
    currency=st.sampled_from(["EUR", "KRW"]),
    amount=st.integers(0, 2**53),
    placed_at=st.just(NOW),
    registered_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    earlier_orders=st.integers(0, 100),
    listed_ip=st.booleans(),
    listed_address=st.booleans(),
)


@given(facts, st.integers(1, 99).flatmap(lambda low: st.tuples(st.just(low), st.integers(low + 1, 100))))
def test_a_score_is_the_sum_of_its_reasons_to_100_and_decides_the_verdict(
    known: Facts, limits: tuple[int, int]
) -> None:
    policy = replace(POLICY, review_score=limits[0], reject_score=limits[1])
    found = domain.evaluate(known, policy)
    assert found.score == min(100, sum(reason.points for reason in found.reasons))
    assert (found.verdict == "reject") == (found.score >= limits[1])
    assert (found.verdict == "approve") == (found.score < limits[0])


@given(facts)
def test_what_is_worse_never_scores_less(known: Facts) -> None:
    before = domain.evaluate(known, POLICY).score
    for worse in (
        replace(known, amount=known.amount * 2),
        replace(known, earlier_orders=known.earlier_orders + 1),
        replace(known, registered_at=None),
        replace(known, listed_ip=True),
        replace(known, listed_address=True),
    ):
        assert domain.evaluate(worse, POLICY).score >= before


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7_200)), max_size=12), st.integers(0, 12))
def test_orders_count_each_other_the_same_however_they_are_cut_into_batches(
    orders: list[tuple[int, int]], cut: int
) -> None:
    """What is in the table before (`known`) and what is in the batch (`new`) come to what all of them come to."""
    rows: list[dict[str, Any]] = [
        {"order_id": UUID(int=number), "user_id": UUID(int=100 + user), "placed_at": NOW + timedelta(seconds=at)}
        for number, (user, at) in enumerate(orders)
    ]
    known, new = rows[:cut], rows[cut:]
    window = timedelta(hours=1)

    def before(row: dict[str, Any], others: list[dict[str, Any]]) -> int:
        at = row["placed_at"]
        return sum(
            other["user_id"] == row["user_id"] and other is not row and at - window < other["placed_at"] <= at
            for other in others
        )

    subjects = [
        Subject(
            row["order_id"],
            row["user_id"],
            replace(CLEAN, placed_at=row["placed_at"], earlier_orders=before(row, known)),
        )
        for row in new
    ]
    found = {subject.order_id: subject.facts.earlier_orders for subject in counted(subjects, new, window)}
    assert found == {row["order_id"]: before(row, rows) for row in new}


# -- times and addresses


def test_a_day_is_one_of_seoul() -> None:
    begin, end = domain.span_of(date(2026, 11, 28))
    assert (begin.isoformat(), end.isoformat()) == ("2026-11-28T00:00:00+09:00", "2026-11-29T00:00:00+09:00")


@pytest.mark.parametrize(
    ("told", "moment"),
    [
        ("2026-11-27T23:30:00-05:00", datetime(2026, 11, 28, 4, 30, tzinfo=UTC)),
        (None, NOW),
        ("yesterday", NOW),
        ("2026-11-27T14:59:59", NOW),
    ],
)
def test_a_time_that_cannot_be_read_is_now(told: str | None, moment: datetime) -> None:
    assert domain.moment_of(told, NOW) == moment
    assert domain.moment_of(told, NOW).tzinfo is UTC


@pytest.mark.parametrize(
    ("told", "written"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("testclient", None),
        ("192.0.2.7, 10.0.0.1", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_an_ip_address_is_written_in_one_way_and_anything_else_is_none(told: object, written: str | None) -> None:
    assert domain.written_ip(told) == written


# -- the list


def test_a_list_has_addresses_networks_and_domains_with_comments() -> None:
    content = (
        b"# comment\r\n\r\n192.0.2.66 ; why\n198.51.100.7/24\nMallory@Example.com\n@fraud.example # x\n"
        b"2001:db8:bad::1/48\n192.0.2.66\nnot an entry\n0.0.0.0/0\n::/0\n"
    )
    threats = domain.read_list(content)
    assert threats.values == (
        "192.0.2.66/32", "198.51.100.0/24", "2001:db8:bad::/48", "@fraud.example", "mallory@example.com"
    )  # fmt: skip
    assert threats.unreadable == 3


@pytest.mark.parametrize(
    "content",
    [b"", b"# nothing\n", b"<!doctype html>\n<html>\n<p>Sorry</p>\n192.0.2.1\n</html>", b"0.0.0.0/0", b"\xff\x00"],
)
def test_what_is_no_list_is_refused(content: bytes) -> None:
    with pytest.raises(NotAListError):
        domain.read_list(content)


def test_as_many_lines_that_cannot_be_read_as_entries_leave_a_list() -> None:
    assert domain.read_list(b"192.0.2.1\nwhat is this\n") == domain.Threats(("192.0.2.1/32",), 1)
    with pytest.raises(NotAListError, match="1 entries, 2 unreadable lines"):
        domain.read_list(b"192.0.2.1\nwhat is this\nor that\n")


@pytest.mark.parametrize(
    "told", ["a@b@c.example", "mallory@", "mallory @b.example", "mallory@b\x01.example", "m" * 245 + "@b.example"]
)
def test_what_is_no_address_is_no_entry(told: str) -> None:
    assert domain.read_list(f"192.0.2.1\n{told}\n".encode()) == domain.Threats(("192.0.2.1/32",), 1)


@pytest.mark.parametrize("told", ["m" * 244 + "@b.example", "10.0.0.0/8", "2001::/16"])
def test_an_entry_is_as_long_or_as_wide_as_it_may_be(told: str) -> None:
    assert domain.read_list(told.encode()) == domain.Threats((told,), 0)


def test_a_list_without_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "ENTRIES_MAX", 2)
    assert len(domain.read_list(b"192.0.2.1\n192.0.2.2").values) == 2
    with pytest.raises(NotAListError, match="over 2 entries"):
        domain.read_list(b"192.0.2.1\n192.0.2.2\n192.0.2.3")


@given(st.binary(max_size=200))
def test_whatever_is_fetched_is_read_or_refused(content: bytes) -> None:
    try:
        threats = domain.read_list(content)
    except NotAListError:
        return
    assert threats.values
    for value in threats.values:
        assert value == value.lower()
        assert "\x00" not in value
