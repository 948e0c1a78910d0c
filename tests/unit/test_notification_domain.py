"""What users are told."""

from __future__ import annotations

from uuid import UUID

import pytest

from services.notification import domain
from services.order.http import CURRENCIES

ORDER_ID = UUID("0198c0de-0000-7000-8000-000000000001")


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (1250, "EUR", "12.50 EUR"),
        (5, "USD", "0.05 USD"),
        (0, "EUR", "0.00 EUR"),
        (1250, "JPY", "1250 JPY"),
        (1250, "KWD", "1.250 KWD"),
        (10**14, "EUR", "1000000000000.00 EUR"),
    ],
)
def test_amounts_are_written_with_the_decimals_of_their_currency(amount: int, currency: str, text: str) -> None:
    assert domain.format_amount(amount, currency) == text


def test_every_currency_that_is_told_apart_is_one_that_orders_can_have() -> None:
    assert domain.NO_DECIMALS | domain.THREE_DECIMALS <= CURRENCIES
    assert not domain.NO_DECIMALS & domain.THREE_DECIMALS


@pytest.mark.parametrize(
    ("text", "title", "body"),
    [
        (
            domain.order_placed(ORDER_ID, 2500, "EUR"),
            "We have your order",
            "Your order {} of 25.00 EUR is placed.",
        ),
        (domain.order_paid(ORDER_ID, 2500, "EUR"), "Your payment arrived", "Your order {} of 25.00 EUR is paid."),
        (
            domain.order_cancelled(ORDER_ID, 2500, "EUR"),
            "Your order is cancelled",
            "Your order {} of 25.00 EUR is cancelled.",
        ),
        (domain.user_registered("Ada"), "Welcome", "Welcome, Ada. Your account is ready."),
        (
            domain.user_profile_updated("Ada"),
            "Your profile changed",
            "Ada, your profile was changed. If that was not you, tell us.",
        ),
        (
            domain.user_deactivated("Ada"),
            "Your account is closed",
            "Ada, your account is deactivated. You cannot place orders any more.",
        ),
    ],
)
def test_a_text_says_what_happened_to_what_and_names_the_order_and_its_amount(
    text: domain.Text, title: str, body: str
) -> None:
    assert text == domain.Text(title, body.format(ORDER_ID))
