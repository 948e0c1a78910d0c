"""Sending from the page: the form, what it would cost, the dialog that asks, and the transfer itself."""

from __future__ import annotations

from http import HTTPStatus
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import Response

from services.wallet.domain.accounts import Account
from services.wallet.domain.fees import FeeRules
from services.wallet.domain.quotes import FeeChangedError, MemberInactiveError, Quote
from services.wallet.domain.transfers import Transfer
from services.wallet.handlers import transfers
from services.wallet.http.page.door import Door
from services.wallet.http.page.forms import Filled, amount_of, empty, fee_of, filled, read_form
from services.wallet.http.page.looking import accounts_of
from services.wallet.http.page.views import Views
from services.wallet.http.page.words import REFUSALS, refusal
from services.wallet.http.problems import PROBLEMS
from services.wallet.http.transfers import TransferView, request_once, wish_of
from shared.http.idempotency import KEY_REUSED, KeyReusedError, check_key
from shared.http.problems import InvalidRequestError
from shared.process import Parts


class Sending:
    """The form of the page, of one process."""

    def __init__(self, parts: Parts, fees: FeeRules, views: Views, door: Door) -> None:
        self._parts = parts
        self._fees = fees
        self._views = views
        self._door = door

    async def quote(self, request: Request) -> Response:
        """What it would cost, as far as the form is filled in."""
        member, _ = await self._door.who(request)
        form = filled(await read_form(request), await accounts_of(self._parts, member))
        wrong = form.errors.get("amount") if form.text["amount"] else None
        quoted = await self._quoted(member, form)
        status = HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK
        return self._views.render(request, "quote.html", {"form": form, "quote": quoted, "wrong": wrong}, status)

    async def confirm(self, request: Request) -> Response:
        """The form again, with what is wrong; or with the dialog that asks, in which a new key stands."""
        member, _ = await self._door.who(request)
        form = filled(await read_form(request), await accounts_of(self._parts, member))
        asked, status = await self._asked(member, form)
        return await self._form(request, member, form, asked=asked, status=status)

    async def send(self, request: Request) -> Response:
        """Have the transfer accepted that the dialog asked about, once for its key, for the fee that it told."""
        member, _ = await self._door.who(request)
        fields, agreed_key = await read_form(request), _key_of(request)
        form, agreed_fee = filled(fields, await accounts_of(self._parts, member)), fee_of(fields.get("fee"))
        asked: Transfer | None = None
        status: int = HTTPStatus.UNPROCESSABLE_ENTITY
        if form.new is not None and form.sender is not None:
            try:
                answer = await request_once(
                    self._parts, self._fees, request, agreed_key, form.new, member=member, agreed_fee=agreed_fee
                )
                return await self._accepted(request, member, TransferView.model_validate_json(bytes(answer.body)))
            except FeeChangedError as error:
                asked, _ = await self._asked(member, form)
                status = _refuse(form, form.sender, error)
            except REFUSALS as error:
                status = _refuse(form, form.sender, error)
        return await self._form(request, member, form, asked=asked, status=status)

    async def _asked(self, member: UUID, form: Filled) -> tuple[Transfer | None, int]:
        """What the dialog asks about, None where it would be refused, which the form then says; and the status."""
        if form.new is None or form.sender is None:
            return None, HTTPStatus.UNPROCESSABLE_ENTITY
        try:
            async with self._parts.units.begin() as uow:
                return await transfers.preview_transfer(uow, wish_of(form.new, member), self._fees), HTTPStatus.OK
        except REFUSALS as error:
            return None, _refuse(form, form.sender, error)

    async def _accepted(self, request: Request, member: UUID, transfer: TransferView) -> Response:
        accounts = await accounts_of(self._parts, member)
        values = {"accounts": accounts, "form": empty(transfer.sender_id), "transfer": transfer}
        return self._views.render(request, "accepted.html", values, HTTPStatus.ACCEPTED)

    async def _form(
        self, request: Request, member: UUID, form: Filled, *, asked: Transfer | None, status: int
    ) -> Response:
        quoted = await self._quoted(member, form)
        values = {"accounts": form.accounts, "form": form, "quote": quoted, "asked": asked, "key": uuid4()}
        return self._views.render(request, "asked.html", values, status)

    async def _quoted(self, member: UUID, form: Filled) -> Quote | None:
        if form.sender is None or "amount" in form.errors:
            return None
        amount = amount_of(form.text["amount"], form.sender.currency)
        try:
            async with self._parts.units.begin() as uow:
                return await transfers.quote_transfer(uow, member, form.sender.id, amount, self._fees)
        except MemberInactiveError:
            return None


def _refuse(form: Filled, sender: Account, error: Exception) -> int:
    """Say in the form why it is refused; returns the status to tell it with."""
    field, sentence = refusal(error, sender)
    form.errors[field] = sentence
    return KEY_REUSED.status if isinstance(error, KeyReusedError) else PROBLEMS[type(error)].status


def _key_of(request: Request) -> str:
    """The Idempotency-Key that was made with the dialog. Raises `InvalidRequestError` without one."""
    key = request.headers.get("idempotency-key")
    where = ["header", "Idempotency-Key"]
    if key is None:
        raise InvalidRequestError(where, "a transfer is sent with the key of its form")
    try:
        check_key(key)
    except ValueError as error:
        raise InvalidRequestError(where, str(error)) from None
    return key
