"""Receiving over HTTP: asking for a share, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from services.wallet.domain.distributions import TOKEN_PATTERN
from services.wallet.domain.receipts import ReceiptStatus, Refusal, Wanted
from services.wallet.handlers.receiving import get_receipt
from services.wallet.http.distributions import EXAMPLE
from services.wallet.http.participants import InRoom, User
from services.wallet.http.problems import (
    ACCOUNT_ID,
    FOR_MEMBERS,
    FROZEN,
    FULL,
    INACTIVE,
    LATE,
    NO_ACCOUNT,
    NO_DISTRIBUTION,
    NO_RECEIPT,
    NOT_ASKED,
    NOT_FOR_GIVER,
    NOTHING_LEFT,
    OVER,
    RECEIVED,
    TRANSFER_ID,
)
from services.wallet.http.receiving import Answered, NoOutcomeError, Receiving
from shared.http.application import IdempotencyKey
from shared.http.cross_origin import FOREIGN
from shared.http.idempotency import KEY_REUSED, Answer, require_one_key, stored_as
from shared.http.openapi import problem_responses
from shared.http.problems import ProblemKind, respond
from shared.process import Parts

_REFUSED: Final[Mapping[Refusal, ProblemKind]] = {
    Refusal.NOTHING_LEFT: NOTHING_LEFT,
    Refusal.OVER: OVER,
    Refusal.RECEIVED_ALREADY: RECEIVED,
    Refusal.ACCOUNT_FROZEN: FROZEN,
    Refusal.ACCOUNT_FULL: FULL,
}


class NewReceipt(BaseModel):
    """The share that somebody wants."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, StringConstraints(pattern=TOKEN_PATTERN), Field(examples=[EXAMPLE])]
    account_id: UUID | None = Field(
        None, description="Where it goes; null: to the oldest account in its currency.", examples=[ACCOUNT_ID]
    )


class ReceiptView(BaseModel):
    """What came of asking for a share; `amount`, in the minor unit of `currency`, is 0 where none was received."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(examples=[TRANSFER_ID])
    token: str
    room_id: str
    account_id: UUID
    currency: str
    status: ReceiptStatus
    reason: Refusal | None = Field(description="Why there was no share.")
    amount: int
    asked_at: datetime
    ended_at: datetime | None


def add_receipts(app: FastAPI, parts: Parts) -> None:
    """The routes of who receives."""
    receiving = Receiving(parts.units, parts.requests)
    refusals = (NO_DISTRIBUTION, NO_ACCOUNT, OVER, NOTHING_LEFT, NOT_FOR_GIVER, RECEIVED, FROZEN, FULL, INACTIVE)

    @app.post(
        "/receive",
        response_model=ReceiptView,
        responses=problem_responses(*refusals, KEY_REUSED, LATE, NOT_ASKED, *FOR_MEMBERS, FOREIGN),
    )
    async def receive_share(
        new: NewReceipt, user: InRoom, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Take the next share, once for each user, and answer with its amount within ten seconds.

        504 or 503: what was not begun by then never is. What comes of it is where the `Link` with `rel="status"`
        leads, and the answer to the same request with the same Idempotency-Key.
        """
        require_one_key(request)
        wanted = Wanted(
            user_id=user.user_id,
            room_id=user.room_id,
            token=new.token,
            account_id=new.account_id,
            key=None if key is None else stored_as(key),
        )
        try:
            answered = await receiving.receive(wanted)
        except NoOutcomeError as error:
            path = f"/receipts/{error.receipt_id}"
            detail = f"{error}; what comes of it is at {path}"
            link = {"link": f'<{path}>; rel="status"'}
            return respond(request.scope, LATE if error.late else NOT_ASKED, detail, headers=link)
        return _told(request, answered)

    @app.get("/receipts/{receipt_id:uuid}", responses=problem_responses(NO_RECEIPT, *FOR_MEMBERS))
    async def read_receipt(receipt_id: UUID, user: User) -> ReceiptView:
        """What came of asking for a share, for who asked."""
        async with parts.units.begin() as uow:
            return ReceiptView.model_validate(await get_receipt(uow, receipt_id, user))


def _told(request: Request, answered: Answered) -> Response:
    receipt = answered.receipt
    if receipt.reason is not None:
        kind = _REFUSED[receipt.reason]
        return respond(request.scope, kind, kind.title or "")
    body = ReceiptView.model_validate(receipt).model_dump_json().encode()
    return Answer(200, body, f"/receipts/{receipt.id}").response(replayed=answered.replayed)
