"""A member's accounts over HTTP, and what changed their balances."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from operator import attrgetter
from uuid import UUID

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from services.wallet.handlers import accounts
from services.wallet.http.problems import ACCOUNT_ID, FOR_MEMBERS, NO_ACCOUNT
from services.wallet.http.sign_in import Member
from shared.http import pages
from shared.http.openapi import problem_responses
from shared.http.pages import PAGE_SIZE, Cursor, PageSize, page_of
from shared.process import Parts


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


class AccountList(BaseModel):
    """A user's accounts, in the order in which they were opened."""

    items: list[AccountView]


class EntryView(BaseModel):
    """What changed a balance; sender, receiver and fee are null where it was no transfer."""

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


def add_accounts(app: FastAPI, parts: Parts) -> None:
    """The routes of a member's accounts."""

    @app.get("/accounts", responses=problem_responses(*FOR_MEMBERS))
    async def list_accounts(member: Member) -> AccountList:
        """The accounts of who is signed in."""
        async with parts.units.begin() as uow:
            found = await accounts.list_accounts(uow, member)
        return AccountList(items=[AccountView.model_validate(account) for account in found])

    @app.get("/accounts/{account_id}", responses=problem_responses(NO_ACCOUNT, *FOR_MEMBERS))
    async def get_account(account_id: UUID, member: Member) -> AccountView:
        async with parts.units.begin() as uow:
            return AccountView.model_validate(await accounts.get_account(uow, account_id, owner=member))

    @app.get("/accounts/{account_id}/entries", responses=problem_responses(NO_ACCOUNT, *FOR_MEMBERS))
    async def list_entries(
        account_id: UUID,
        member: Member,
        cursor: Cursor = "",
        limit: PageSize = PAGE_SIZE,
    ) -> EntryPage:
        """What changed an account's balance, newest first."""
        return await entries_of(parts, account_id, member, cursor, limit)


async def entries_of(parts: Parts, account_id: UUID, owner: UUID | None, cursor: str, limit: int) -> EntryPage:
    """A page of the entries of an account, of the user `owner` or, with None, whoever's.

    Raises `AccountNotFoundError` and `InvalidRequestError`.
    """
    before = pages.decode_sequence(cursor) if cursor else None
    async with parts.units.begin() as uow:
        await accounts.get_account(uow, account_id, owner=owner)
        fetch = partial(accounts.list_entries, uow, account_id, before)
        entries, next_cursor = await page_of(fetch, limit, attrgetter("sequence"))
    return EntryPage(items=[EntryView.model_validate(entry) for entry in entries], next_cursor=next_cursor)
