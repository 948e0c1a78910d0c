"""What users are told."""

from __future__ import annotations

from uuid import UUID

import pytest

from services.notification import domain
from services.notification.domain import Text
from services.order.http import CURRENCIES
from shared import money

ORDER_ID = UUID("0198c0de-0000-7000-8000-000000000001")
ADA, BOB = UUID(int=1), UUID(int=2)
FULL = "the receiver's account cannot hold so much"


@pytest.mark.parametrize(
    ("event", "about", "subject", "body"),
    [
        (
            "transfer_completed",
            (ADA, BOB, 1_250, 5, "EUR"),
            "Your transfer is done",
            f"12.50 EUR went from {ADA} to {BOB}; the fee was 0.05 EUR.",
        ),
        (
            "transfer_received",
            (ADA, BOB, 1_250, "JPY"),
            "You have received money",
            f"1250 JPY came from {ADA} to {BOB}.",
        ),
        (
            "transfer_failed",
            (BOB, 1_250, "JPY", "receiver_full"),
            "Your transfer failed",
            f"1250 JPY to {BOB} were not sent: {FULL}. Nothing left your account.",
        ),
        (
            "transfer_failed",
            (BOB, 1_250, "JPY", "new word"),
            "Your transfer failed",
            f"1250 JPY to {BOB} were not sent: new word. Nothing left your account.",
        ),
        (
            "transfer_cancelled",
            (BOB, 1_250, "JPY"),
            "Your transfer is cancelled",
            f"1250 JPY to {BOB} were not sent, as you wished.",
        ),
    ],
)
def test_each_end_of_a_transfer_has_words_of_its_own(
    event: str, about: tuple[object, ...], subject: str, body: str
) -> None:
    assert getattr(domain, event)(*about) == Text(subject, body)


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
    assert money.NO_DECIMALS | money.THREE_DECIMALS <= CURRENCIES
    assert not money.NO_DECIMALS & money.THREE_DECIMALS


def test_a_text_says_what_happened_to_what_and_names_the_order_and_its_amount() -> None:
    order = (ORDER_ID, 2500, "EUR")
    named = f"Your order {ORDER_ID} of 25.00 EUR is"
    assert domain.order_placed(*order) == Text("We have your order", f"{named} placed.")
    assert domain.order_paid(*order) == Text("Your payment arrived", f"{named} paid.")
    assert domain.order_cancelled(*order) == Text("Your order is cancelled", f"{named} cancelled.")


def test_a_text_about_an_account_names_its_user_and_what_became_of_it() -> None:
    assert domain.user_registered("Ada") == Text("Welcome", "Welcome, Ada. Your account is ready.")
    assert domain.user_profile_updated("Ada") == Text(
        "Your profile changed", "Ada, your profile was changed. If that was not you, tell us."
    )
    assert domain.user_deactivated("Ada") == Text(
        "Your account is closed", "Ada, your account is deactivated. You cannot place orders any more."
    )


def test_a_text_about_a_distribution_says_how_much_was_taken_and_what_came_back() -> None:
    title = "Your distribution is over"
    assert domain.distribution_closed(1_000, 300, "KRW") == Text(
        title, "700 KRW of 1000 KRW were taken. 300 KRW came back to your account."
    )
    assert domain.distribution_closed(1_000, 0, "KRW") == Text(
        title, "1000 KRW of 1000 KRW were taken. Nothing is left."
    )
