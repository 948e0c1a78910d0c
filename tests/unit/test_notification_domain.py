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


def test_a_text_names_the_order_and_what_it_costs() -> None:
    for tell in (domain.order_placed, domain.order_paid, domain.order_cancelled):
        text = tell(ORDER_ID, 2500, "EUR")
        assert text.title
        assert str(ORDER_ID) in text.body
        assert "25.00 EUR" in text.body
