"""The HTTP of the wallet: quotes, transfers, accounts and their entries.

No process serves it yet: it does not ask who somebody is.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from services.wallet import handlers
from services.wallet.domain import accounts, quotes, transfers
from services.wallet.domain.fees import FREE, FeeRules
from services.wallet.domain.postings import AMOUNT_MAX
from services.wallet.domain.transfers import FailureReason, Labels, Transfer, TransferStatus
from shared.http import pages
from shared.http.application import IdempotencyKey, service_app
from shared.http.idempotency import KEY_REUSED, Answer, answer_once
from shared.http.openapi import problem_responses
from shared.http.pages import CURSOR_DESCRIPTION, PAGE_SIZE, PAGE_SIZE_MAX, page_of
from shared.http.problems import ProblemKind
from shared.process import Parts
from shared.publishing import UnitOfWork

TRANSFER_ID = "0198c0de-0000-7000-8000-000000000001"
ACCOUNT_ID = "0198c0de-0000-7000-8000-00000000000a"
OTHER_ID = "0198c0de-0000-7000-8000-00000000000b"
USER_NOT_KNOWN_RETRY_S = 1

NO_TRANSFER = ProblemKind(
    404, "transfer-not-found", "No such transfer", example=f"transfer {TRANSFER_ID} does not exist"
)
NO_ACCOUNT = ProblemKind(
    404, "account-not-found", "No such account", example=f"account {ACCOUNT_ID} does not exist"
)
ENDED = ProblemKind(
    409, "transfer-ended", "The transfer has ended", example=f"transfer {TRANSFER_ID} is completed already"
)
FUNDS = ProblemKind(
    409,
    "insufficient-funds",
    "More than is available",
    example=f"account {ACCOUNT_ID} has 500 available, not 600",
)
LIMIT = ProblemKind(
    409, "limit-exceeded", "More than a limit leaves", example="500 may be sent in one transfer, not 600"
)
FROZEN = ProblemKind(409, "account-frozen", "The account is frozen", example=f"account {ACCOUNT_ID} is frozen")
RECEIVER = ProblemKind(
    409,
    "receiver-not-possible",
    "Nothing can be sent there",
    example=f"account {OTHER_ID} is in USD, not in KRW",
)
INACTIVE = ProblemKind(
    409,
    "user-not-active",
    "The user is deactivated, or not known, or not yet",
    USER_NOT_KNOWN_RETRY_S,
    example="user 0198c0de-0000-7000-8000-00000000000c is deactivated",
)
PROBLEMS: dict[type[Exception], ProblemKind] = {
    transfers.TransferNotFoundError: NO_TRANSFER,
    accounts.AccountNotFoundError: NO_ACCOUNT,
    transfers.TransferEndedError: ENDED,
    accounts.InsufficientFundsError: FUNDS,
    quotes.LimitExceededError: LIMIT,
    accounts.AccountFrozenError: FROZEN,
    transfers.ReceiverError: RECEIVER,
    quotes.MemberInactiveError: INACTIVE,
}

Amount = Annotated[
    int,
    Field(strict=True, ge=1, le=AMOUNT_MAX, description="In the currency's minor unit.", examples=[50_000]),
]
# No control characters: PostgreSQL takes no NUL, and no statement of account shows the others.
Label = Annotated[str, StringConstraints(max_length=transfers.LABEL_LENGTH_MAX, pattern=r"^[^\x00-\x1f\x7f]*$")]


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


class AccountView(BaseModel):
    """An account as the API shows it; amounts in the minor unit of `currency`."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(examples=[ACCOUNT_ID])
    user_id: UUID
    currency: str
    balance: int
    held: int = Field(description="What pending transfers need.")
    available: int
    frozen: bool


class EntryView(BaseModel):
    """What changed a balance; sender, receiver and fee are null for an adjustment."""

    model_config = ConfigDict(from_attributes=True)

    movement_id: UUID
    amount: int
    label: str
    sender_id: UUID | None
    receiver_id: UUID | None
    fee: int | None
    posted_at: datetime


class EntryPage(BaseModel):
    """Entries, newest first; `next_cursor` continues the list, null at its end."""

    items: list[EntryView]
    next_cursor: str | None


def answer(status: int, transfer: Transfer, *, created: bool = False) -> Answer:
    body = TransferView.model_validate(transfer).model_dump_json().encode()
    return Answer(status, body, f"/transfers/{transfer.id}" if created else None)


def create_app(parts: Parts, fees: FeeRules = FREE) -> FastAPI:
    """The wallet's HTTP application, for a process with the role `api`."""
    app = service_app(
        title="Tandem wallet",
        description="Takes transfers between accounts, and tells what became of them.",
        telemetry=parts.telemetry,
        errors=PROBLEMS,
        outbox_gate=parts.outbox_gate,
    )
    add_queries(app, parts)
    add_commands(app, parts, fees)
    return app


def add_queries(app: FastAPI, parts: Parts) -> None:
    @app.get("/transfers/{transfer_id}", responses=problem_responses(NO_TRANSFER))
    async def get_transfer(transfer_id: UUID) -> TransferView:
        async with parts.units.begin() as uow:
            return TransferView.model_validate(await handlers.get_transfer(uow, transfer_id))

    @app.get("/accounts/{account_id}", responses=problem_responses(NO_ACCOUNT))
    async def get_account(account_id: UUID) -> AccountView:
        async with parts.units.begin() as uow:
            return AccountView.model_validate(await handlers.get_account(uow, account_id))

    @app.get("/accounts/{account_id}/entries", responses=problem_responses(NO_ACCOUNT))
    async def list_entries(
        account_id: UUID,
        cursor: Annotated[str, Query(description=CURSOR_DESCRIPTION)] = "",
        limit: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)] = PAGE_SIZE,
    ) -> EntryPage:
        """What changed an account's balance, newest first."""
        before = pages.decode_sequence(cursor) if cursor else None
        async with parts.units.begin() as uow:
            await handlers.get_account(uow, account_id)
            fetch = partial(handlers.list_entries, uow, account_id, before)
            entries, next_cursor = await page_of(fetch, limit, attrgetter("sequence"))
        return EntryPage(items=[EntryView.model_validate(entry) for entry in entries], next_cursor=next_cursor)


def add_commands(app: FastAPI, parts: Parts, fees: FeeRules) -> None:
    units = parts.units
    refusals = (NO_ACCOUNT, FUNDS, LIMIT, FROZEN, RECEIVER, INACTIVE, KEY_REUSED)
    change: dict[str, Any] = {
        "response_model": TransferView,
        "responses": problem_responses(NO_TRANSFER, ENDED, KEY_REUSED),
    }

    @app.post("/transfers/quote", responses=problem_responses(NO_ACCOUNT, INACTIVE))
    async def quote_transfer(new: NewQuote) -> QuoteView:
        """What a transfer would cost; nothing is promised by it."""
        async with units.begin() as uow:
            return QuoteView.model_validate(await handlers.quote_transfer(uow, new.sender_id, new.amount, fees))

    @app.post("/transfers", status_code=202, response_model=TransferView, responses=problem_responses(*refusals))
    async def request_transfer(new: NewTransfer, request: Request, key: IdempotencyKey = None) -> Response:
        """Accept a transfer, which is pending until it is executed; publishes `transfer.requested`."""
        wish = handlers.Wish(
            sender_id=new.sender_id,
            receiver_id=new.receiver_id,
            amount=new.amount,
            labels=Labels(new.sender_label, new.receiver_label),
        )

        async def work(uow: UnitOfWork) -> Answer:
            return answer(202, await handlers.request_transfer(uow, wish, fees), created=True)

        return await answer_once(units, request, key, work)

    @app.post("/transfers/{transfer_id}/cancel", **change)
    async def cancel_transfer(transfer_id: UUID, request: Request, key: IdempotencyKey = None) -> Response:
        """Take back a transfer that is pending; publishes `transfer.cancelled`."""

        async def work(uow: UnitOfWork) -> Answer:
            return answer(200, await handlers.cancel_transfer(uow, transfer_id))

        return await answer_once(units, request, key, work)
