"""What is told to a user, and how. Pure: no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from shared.money import format_amount as number_of


@dataclass(frozen=True, slots=True)
class Text:
    """What one notification says."""

    title: str
    body: str


def format_amount(amount: int, currency: str) -> str:
    """An amount in minor units as people write it: `1250, "EUR"` → `12.50 EUR`."""
    return f"{number_of(amount, currency)} {currency}"


def order_placed(order_id: UUID, amount: int, currency: str) -> Text:
    return Text("We have your order", f"Your order {order_id} of {format_amount(amount, currency)} is placed.")


def order_paid(order_id: UUID, amount: int, currency: str) -> Text:
    return Text("Your payment arrived", f"Your order {order_id} of {format_amount(amount, currency)} is paid.")


def order_cancelled(order_id: UUID, amount: int, currency: str) -> Text:
    return Text(
        "Your order is cancelled", f"Your order {order_id} of {format_amount(amount, currency)} is cancelled."
    )


def user_registered(name: str) -> Text:
    return Text("Welcome", f"Welcome, {name}. Your account is ready.")


def user_profile_updated(name: str) -> Text:
    return Text("Your profile changed", f"{name}, your profile was changed. If that was not you, tell us.")


def user_deactivated(name: str) -> Text:
    return Text(
        "Your account is closed", f"{name}, your account is deactivated. You cannot place orders any more."
    )


_WHY_IT_FAILED: Final = {
    "sender_frozen": "your account is frozen",
    "receiver_frozen": "the receiver's account is frozen",
    "receiver_full": "the receiver's account cannot hold so much",
}


def transfer_completed(sender_id: UUID, receiver_id: UUID, amount: int, fee: int, currency: str) -> Text:
    sent, cost = format_amount(amount, currency), format_amount(fee, currency)
    return Text("Your transfer is done", f"{sent} went from {sender_id} to {receiver_id}; the fee was {cost}.")


def transfer_received(sender_id: UUID, receiver_id: UUID, amount: int, currency: str) -> Text:
    return Text(
        "You have received money", f"{format_amount(amount, currency)} came from {sender_id} to {receiver_id}."
    )


def transfer_failed(receiver_id: UUID, amount: int, currency: str, reason: str) -> Text:
    """`reason` is the wallet's word; one that is not known here is told as it is."""
    sent, why = format_amount(amount, currency), _WHY_IT_FAILED.get(reason, reason)
    return Text(
        "Your transfer failed", f"{sent} to {receiver_id} were not sent: {why}. Nothing left your account."
    )


def distribution_closed(amount: int, given_back: int, currency: str) -> Text:
    given, back = format_amount(amount - given_back, currency), format_amount(given_back, currency)
    rest = f"{back} came back to your account." if given_back else "Nothing is left."
    return Text("Your distribution is over", f"{given} of {format_amount(amount, currency)} were taken. {rest}")


def transfer_cancelled(receiver_id: UUID, amount: int, currency: str) -> Text:
    sent = format_amount(amount, currency)
    return Text("Your transfer is cancelled", f"{sent} to {receiver_id} were not sent, as you wished.")
