"""What members fill in: how a form is read, and what each field must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl
from uuid import UUID

from pydantic import ValidationError
from starlette.requests import Request

from services.wallet.domain.accounts import Account
from services.wallet.domain.postings import AMOUNT_MAX
from services.wallet.domain.transfers import LABEL_LENGTH_MAX
from services.wallet.http.page.words import money
from services.wallet.http.transfers import NewTransfer
from shared.http.problems import InvalidRequestError
from shared.money import parse_amount

FIELDS: Final = ("sender_id", "receiver_id", "amount", "sender_label", "receiver_label")
_FIELDS_MAX: Final = 20
_LABEL: Final = f"At most {LABEL_LENGTH_MAX} characters, in one line."


@dataclass(slots=True)
class Filled:
    """A form as it was filled in: its fields' text, the member's accounts, the one that sends, and what is wrong.

    An error without a field stands under the name `form`. `new` is None where a field is wrong.
    """

    text: Mapping[str, str]
    accounts: Sequence[Account]
    sender: Account | None
    errors: dict[str, str] = field(default_factory=dict)
    new: NewTransfer | None = None


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises `InvalidRequestError` for what no browser makes of one of ours."""
    raw = await request.body()
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(raw),
            errors="strict",
            max_num_fields=_FIELDS_MAX,
        )
    except ValueError:
        raise InvalidRequestError(["body"], "not a form that this page has") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidRequestError(["body"], "a field is there twice")
    return fields


def account_of(text: str | None, accounts: Sequence[Account]) -> Account | None:
    """The one of these accounts that has this id."""
    return next((one for one in accounts if str(one.id) == text), None)


def amount_of(text: str, currency: str) -> int:
    """The minor units that somebody wrote. Raises `ValueError`, with a sentence for who wrote them."""
    least, most = money(1, currency), money(AMOUNT_MAX, currency)
    try:
        amount = parse_amount(text, currency)
    except ValueError:
        raise ValueError(f"Enter an amount of {currency}, such as {money(1_234_500, currency)}.") from None
    if not 1 <= amount <= AMOUNT_MAX:
        raise ValueError(f"Enter an amount from {least} to {most}.")
    return amount


def filled(fields: Mapping[str, str], accounts: Sequence[Account]) -> Filled:
    """What a member, whose accounts these are, has filled in."""
    text = {name: fields.get(name, "").strip() for name in FIELDS}
    form = Filled(text, accounts, account_of(text["sender_id"], accounts))
    amount: int | None = None
    if form.sender is None:
        form.errors["sender_id"] = "Choose one of your accounts."
    else:
        try:
            amount = amount_of(text["amount"], form.sender.currency)
        except ValueError as error:
            form.errors["amount"] = str(error)
    try:
        new = NewTransfer.model_validate({**text, "amount": amount or 1})
    except ValidationError as error:
        for wrong in error.errors():
            form.errors.setdefault(str(wrong["loc"][0]), _sentence(str(wrong["loc"][0])))
    else:
        form.new = None if form.errors else new
    return form


def fee_of(text: str | None) -> int:
    """The fee that was agreed to. Raises `InvalidRequestError`."""
    if text is None or not (text.isascii() and text.isdecimal()) or len(text) > len(str(AMOUNT_MAX)):
        raise InvalidRequestError(["body", "fee"], "not a fee that this page told")
    return int(text)


def empty(sender_id: UUID | None) -> Filled:
    """The form before anything is filled in."""
    return Filled({**dict.fromkeys(FIELDS, ""), "sender_id": str(sender_id or "")}, (), None)


def _sentence(name: str) -> str:
    if name == "receiver_id":
        return "Enter the receiver's account number: 36 characters, four of them hyphens."
    return "Choose one of your accounts." if name == "sender_id" else _LABEL
