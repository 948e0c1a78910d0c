"""Distributions over HTTP, for who gives: opening one, and looking at it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import FastAPI, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from services.wallet.domain.distributions import PEOPLE_MAX, TOKEN_PATTERN, Distribution, Split
from services.wallet.handlers import distributions
from services.wallet.handlers.distributions import Gift
from services.wallet.http.participants import InRoom
from services.wallet.http.problems import (
    ACCOUNT_ID,
    FOR_MEMBERS,
    FROZEN,
    FUNDS,
    INACTIVE,
    LIMIT,
    NO_ACCOUNT,
    NO_DISTRIBUTION,
    UNSPLITTABLE,
    WHICH_ACCOUNT,
)
from services.wallet.http.transfers import Amount
from services.wallet.http.turns import turn
from shared.http.application import IdempotencyKey
from shared.http.cross_origin import FOREIGN
from shared.http.idempotency import KEY_REUSED, Answer, answer_once
from shared.http.openapi import problem_responses
from shared.process import Parts
from shared.publishing import UnitOfWork

EXAMPLE = "k7m2xq9d"
DistributionToken = Annotated[str, Path(pattern=TOKEN_PATTERN, examples=[EXAMPLE])]


class NewDistribution(BaseModel):
    """What somebody wants to scatter."""

    model_config = ConfigDict(extra="forbid")

    amount: Amount
    people: int = Field(strict=True, ge=1, le=PEOPLE_MAX, description="Among so many.", examples=[10])
    split: Split = Split.RANDOM
    account_id: UUID | None = Field(None, description="Null: from the only account.", examples=[ACCOUNT_ID])


class ShareView(BaseModel):
    """Who took how much."""

    user_id: UUID
    amount: int
    taken_at: datetime


class DistributionView(BaseModel):
    """A distribution as its giver sees it; amounts in the minor unit of `currency`."""

    token: str = Field(examples=[EXAMPLE])
    room_id: str
    account_id: UUID
    currency: str
    amount: int
    people: int
    split: Split
    opened_at: datetime
    closes_at: datetime
    closed_at: datetime | None = Field(description="When the last share was taken, or the rest given back.")
    taken: int = Field(description="How much of the amount.")
    given_back: int
    shares: list[ShareView] = Field(description="Those that are taken, in the order in which they were.")

    @classmethod
    def of(cls, shown: Distribution) -> Self:
        taken = [
            ShareView(user_id=share.receiver_id, amount=share.amount, taken_at=share.taken_at)
            for share in shown.shares
            if share.receiver_id is not None and share.taken_at is not None
        ]
        return cls(
            token=shown.token,
            room_id=shown.room_id,
            account_id=shown.account_id,
            currency=shown.currency,
            amount=shown.amount,
            people=shown.people,
            split=shown.split,
            opened_at=shown.opened_at,
            closes_at=shown.closes_at,
            closed_at=shown.closed_at,
            taken=sum(share.amount for share in taken),
            given_back=shown.given_back,
            shares=sorted(taken, key=lambda share: share.taken_at),
        )


def add_distributions(app: FastAPI, parts: Parts) -> None:
    """The routes of who gives."""
    units = parts.units
    app.state.gateway_token = parts.settings.wallet_gateway_token
    refusals = (NO_ACCOUNT, WHICH_ACCOUNT, UNSPLITTABLE, FUNDS, LIMIT, FROZEN, INACTIVE, KEY_REUSED)

    @app.post(
        "/distributions",
        status_code=201,
        response_model=DistributionView,
        responses=problem_responses(*refusals, *FOR_MEMBERS, FOREIGN),
    )
    async def open_distribution(
        new: NewDistribution, giver: InRoom, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Have the amount leave the account, for ten minutes, for whoever in the room is told the token."""
        gift = Gift(
            user_id=giver.user_id,
            room_id=giver.room_id,
            amount=new.amount,
            people=new.people,
            split=new.split,
            account_id=new.account_id,
        )

        async def work(uow: UnitOfWork) -> Answer:
            opened = await distributions.open_distribution(uow, gift)
            body = DistributionView.of(opened).model_dump_json().encode()
            return Answer(201, body, f"/distributions/{opened.token}")

        async with turn(request, giver.user_id):
            return await answer_once(units, request, key, work, of=f"{giver.user_id} {giver.room_id}")

    @app.get("/distributions/{token}", responses=problem_responses(NO_DISTRIBUTION, *FOR_MEMBERS))
    async def get_distribution(token: DistributionToken, giver: InRoom) -> DistributionView:
        """For its giver alone, in its room, for seven days: how much is taken, and who took what."""
        async with units.begin() as uow:
            shown = await distributions.get_distribution(uow, giver.room_id, token, giver.user_id)
        return DistributionView.of(shown)
