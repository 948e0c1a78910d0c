"""A member's transfers over HTTP: quotes, requests, what became of them, taking one back."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from services.wallet.domain.fees import FeeRules
from services.wallet.domain.postings import AMOUNT_MAX
from services.wallet.domain.transfers import LABEL_LENGTH_MAX, FailureReason, Labels, Transfer, TransferStatus
from services.wallet.handlers import transfers
from services.wallet.http.problems import (
    ACCOUNT_ID,
    ENDED,
    FOR_MEMBERS,
    FROZEN,
    FUNDS,
    INACTIVE,
    LIMIT,
    NO_ACCOUNT,
    NO_TRANSFER,
    OTHER_ID,
    RECEIVER,
    TRANSFER_ID,
)
from services.wallet.http.sign_in import Member
from services.wallet.http.turns import turn
from shared.http import pages
from shared.http.application import IdempotencyKey
from shared.http.cross_origin import FOREIGN
from shared.http.idempotency import KEY_REUSED, Answer, answer_once
from shared.http.openapi import problem_responses
from shared.http.pages import PAGE_SIZE, Cursor, PageSize, page_of
from shared.process import Parts
from shared.publishing import UnitOfWork

Amount = Annotated[
    int,
    Field(strict=True, ge=1, le=AMOUNT_MAX, description="In the currency's minor unit.", examples=[50_000]),
]
# No control characters: PostgreSQL takes no NUL, and no statement of account shows the others.
Label = Annotated[str, StringConstraints(max_length=LABEL_LENGTH_MAX, pattern=r"^[^\x00-\x1f\x7f]*$")]


class NewQuote(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sender_id: UUID = Field(examples=[ACCOUNT_ID])
    amount: Amount


class NewTransfer(NewQuote):
    """What somebody wants to send."""

    receiver_id: UUID = Field(examples=[OTHER_ID])
    sender_label: Label = Field("", examples=["rent"])
    receiver_label: Label = Field("", examples=["from Ada"])


class QuoteView(BaseModel):
    """What a transfer would cost, and what is left before it; amounts in the currency's minor unit."""

    model_config = ConfigDict(from_attributes=True)

    amount: int
    fee: int
    free: bool = Field(description="Without a fee as one of the day's free transfers.")
    total: int
    available: int
    one_time_limit: int
    left_today: int
    left_of_total: int | None = Field(description="Of all the user's accounts; null without such a limit.")
    free_left: int


class TransferView(BaseModel):
    """A transfer as the API shows it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(examples=[TRANSFER_ID])
    sender_id: UUID
    receiver_id: UUID
    currency: str
    amount: int
    fee: int
    sender_label: str
    receiver_label: str
    status: TransferStatus
    reason: FailureReason | None = Field(description="Why it failed.")
    requested_at: datetime
    ended_at: datetime | None


class SentPage(BaseModel):
    """What a member sent, newest first; `next_cursor` continues the list, null at its end."""

    items: list[TransferView]
    next_cursor: str | None


def answer(status: int, transfer: Transfer, *, created: bool = False) -> Answer:
    body = TransferView.model_validate(transfer).model_dump_json().encode()
    return Answer(status, body, f"/transfers/{transfer.id}" if created else None)


async def request_once(
    parts: Parts,
    fees: FeeRules,
    request: Request,
    key: str | None,
    new: NewTransfer,
    *,
    member: UUID,
    agreed_fee: int | None = None,
) -> Response:
    """Accept what a member wants to send, once for a key; the answer is the transfer as JSON, with 202.

    Raises what `transfers.request_transfer` and `answer_once` raise.
    """
    wish = wish_of(new, member, agreed_fee)

    async def work(uow: UnitOfWork) -> Answer:
        return answer(202, await transfers.request_transfer(uow, wish, fees), created=True)

    async with turn(request, member):
        return await answer_once(parts.units, request, key, work, of=str(member))


def wish_of(new: NewTransfer, member: UUID, agreed_fee: int | None = None) -> transfers.Wish:
    """What a request says that a member wants."""
    return transfers.Wish(
        user_id=member,
        sender_id=new.sender_id,
        receiver_id=new.receiver_id,
        amount=new.amount,
        labels=Labels(new.sender_label, new.receiver_label),
        agreed_fee=agreed_fee,
    )


def add_transfers(app: FastAPI, parts: Parts, fees: FeeRules) -> None:
    """The routes of a member's transfers."""
    units = parts.units
    refusals = (NO_ACCOUNT, FUNDS, LIMIT, FROZEN, RECEIVER, INACTIVE, KEY_REUSED, *FOR_MEMBERS, FOREIGN)
    change: dict[str, Any] = {
        "response_model": TransferView,
        "responses": problem_responses(NO_TRANSFER, ENDED, KEY_REUSED, *FOR_MEMBERS, FOREIGN),
    }

    @app.post("/transfers/quote", responses=problem_responses(NO_ACCOUNT, INACTIVE, *FOR_MEMBERS, FOREIGN))
    async def quote_transfer(new: NewQuote, member: Member) -> QuoteView:
        """What a transfer would cost; nothing is promised by it."""
        async with units.begin() as uow:
            quote = await transfers.quote_transfer(uow, member, new.sender_id, new.amount, fees)
        return QuoteView.model_validate(quote)

    @app.post("/transfers", status_code=202, response_model=TransferView, responses=problem_responses(*refusals))
    async def request_transfer(
        new: NewTransfer, member: Member, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Accept a transfer, which is pending until it is executed; publishes `transfer.requested`."""
        return await request_once(parts, fees, request, key, new, member=member)

    @app.post("/transfers/{transfer_id:uuid}/cancel", **change)
    async def cancel_transfer(
        transfer_id: UUID, member: Member, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Take back a transfer that is pending; publishes `transfer.cancelled`."""

        async def work(uow: UnitOfWork) -> Answer:
            return answer(200, await transfers.cancel_transfer(uow, transfer_id, sent_by=member))

        async with turn(request, member):
            return await answer_once(units, request, key, work, of=str(member))

    @app.get("/transfers", responses=problem_responses(*FOR_MEMBERS))
    async def list_own_transfers(
        member: Member, status: TransferStatus | None = None, cursor: Cursor = "", limit: PageSize = PAGE_SIZE
    ) -> SentPage:
        """What who is signed in sent, in a state or in any; newest first."""
        before = pages.decode_id(cursor) if cursor else None
        async with units.begin() as uow:
            fetch = partial(transfers.list_transfers, uow, member, status, before)
            found, next_cursor = await page_of(fetch, limit, attrgetter("id"))
        return SentPage(items=[TransferView.model_validate(one) for one in found], next_cursor=next_cursor)

    @app.get("/transfers/{transfer_id:uuid}", responses=problem_responses(NO_TRANSFER, *FOR_MEMBERS))
    async def get_transfer(transfer_id: UUID, member: Member) -> TransferView:
        async with units.begin() as uow:
            return TransferView.model_validate(await transfers.get_transfer(uow, transfer_id, sent_by=member))
