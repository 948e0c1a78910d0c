"""The domains, whatever they are given."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notification import domain as notification
from services.order import domain as order
from services.order.http import CURRENCIES
from services.user import domain as user
from shared import money

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
KNOWN = order.KnownUser(UUID(int=1), active=True, version=1, traceparent=None)
lines = st.builds(
    order.Line,
    sku=st.text(min_size=1, max_size=order.SKU_LENGTH_MAX),
    quantity=st.integers(1, order.QUANTITY_MAX),
    unit_amount=st.integers(0, order.UNIT_AMOUNT_MAX),
)


@given(st.lists(lines, min_size=1, max_size=order.LINES_MAX))
def test_a_total_is_the_sum_of_its_lines_and_exact_in_every_json_reader(bought: list[order.Line]) -> None:
    placed = order.place(UUID(int=2), KNOWN, "EUR", bought, NOW)
    assert placed.total_amount == sum(line.quantity * line.unit_amount for line in bought)
    assert float(placed.total_amount) == placed.total_amount < 2**53


@given(st.lists(st.sampled_from([order.pay, order.cancel]), max_size=6))
def test_of_all_that_is_tried_only_the_first_changes_an_order(changes: list[object]) -> None:
    placed = current = order.place(UUID(int=2), KNOWN, "EUR", [order.Line("TEA", 1, 1)], NOW)
    for change in changes:
        with suppress(order.IllegalStateChangeError):
            current = change(current, NOW)  # type: ignore[operator]
    assert current.version == placed.version + bool(changes)


Profile = tuple[str | None, str | None]
"""A change of the e-mail address, the name, or both."""

profile = st.none() | st.text(max_size=5)


@given(st.lists(st.tuples(profile, profile) | st.just("deactivate"), max_size=8))
def test_a_user_s_version_grows_by_one_with_every_change_and_never_after_the_end(
    steps: list[Profile | str],
) -> None:
    current = user.register(UUID(int=1), "a@b.org", "Ada", NOW)
    for step in steps:
        before = current
        with suppress(user.IllegalStateChangeError):
            if isinstance(step, tuple):
                current = user.update_profile(current, *step, NOW)
            else:
                current = user.deactivate(current, NOW)
        changed = (before.email, before.name, before.status) != (current.email, current.name, current.status)
        assert current.version == before.version + changed
        assert not changed or before.status is user.UserStatus.ACTIVE


@given(st.integers(0, 2**63 - 1), st.sampled_from(sorted(CURRENCIES)))
def test_an_amount_can_be_read_back_from_what_people_are_shown(amount: int, currency: str) -> None:
    shown, code = notification.format_amount(amount, currency).split(" ")
    whole, _, fraction = shown.partition(".")
    assert code == currency
    assert int(whole + fraction) == amount
    assert len(fraction) == {True: 0, False: 2}.get(currency in money.NO_DECIMALS, 2) or (
        currency in money.THREE_DECIMALS and len(fraction) == 3
    )


@given(st.integers(0, 10**15 - 1), st.sampled_from(sorted(CURRENCIES)), st.sampled_from(["", ","]))
def test_an_amount_is_read_as_it_is_written(amount: int, currency: str, thousands: str) -> None:
    assert money.parse_amount(money.format_amount(amount, currency, thousands=thousands), currency) == amount
    assert money.format_amount(-amount - 1, currency).startswith("-")


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("", "EUR"), ("-1", "EUR"), ("1,5", "EUR"), ("1,00,000", "EUR"), ("1.234", "EUR"), ("1.5", "KRW"),
        ("1e3", "EUR"), ("1 EUR", "EUR"), (".5", "EUR"), ("\u0661", "EUR"), ("9" * 16, "KRW"), ("1\0", "KRW"),
    ],
)  # fmt: skip
def test_what_is_no_amount_is_none(text: str, currency: str) -> None:
    with pytest.raises(ValueError, match=f"not an amount of {currency}"):
        money.parse_amount(text, currency)


@pytest.mark.parametrize("text", ["\r\nBcc: x", "{{ 7 * 7 }}", "%s", "<script>"])
def test_a_name_is_text_and_nothing_else(text: str) -> None:
    assert text in notification.user_registered(text).body
