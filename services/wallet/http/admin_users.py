"""What administrators do over HTTP with users, sign-ins and account types; and the record of all that they do."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI, Query
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.wallet.domain.administration import ActKind, By
from services.wallet.domain.limits import AccountType, Limits
from services.wallet.domain.postings import AMOUNT_MAX
from services.wallet.domain.sign_in import NAME_PATTERN
from services.wallet.handlers import accounts, administration
from services.wallet.handlers.passwords import Passwords
from services.wallet.http.accounts import AccountView
from services.wallet.http.problems import FOR_ADMINISTRATORS, NAME_TAKEN, NO_ACCOUNT_TYPE, NO_USER
from services.wallet.http.sign_in import Administrator, Password
from services.wallet.store import administration as rows
from shared.http import pages
from shared.http.cross_origin import FOREIGN
from shared.http.openapi import problem_responses
from shared.http.pages import PAGE_SIZE, Cursor, PageSize, page_of
from shared.process import Parts

Limit = Annotated[int, Field(strict=True, ge=0, le=AMOUNT_MAX, description="In the currency's minor unit.")]
Reason = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$"),
    Field(description="Why; it is kept for good.", examples=["asked for by telephone"]),
]
TypeName = Annotated[str, StringConstraints(pattern=NAME_PATTERN), Field(examples=["plain"])]
SignInName = Annotated[str, InPath(pattern=NAME_PATTERN, examples=["ada"])]
TypeInPath = Annotated[str, InPath(pattern=NAME_PATTERN, examples=["plain"])]


class Reasoned(BaseModel):
    """What an administrator does has a reason."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class NewUserLimits(Reasoned):
    limit_total: Limit | None = Field(description="Of all the user's accounts in a day; null: no such limit.")
    free_transfers: int = Field(strict=True, ge=0, le=10_000, description="A day.", examples=[3])


class NewSignIn(Reasoned):
    """Who signs in with the name; without a user an administrator does."""

    user_id: UUID | None
    password: Password


class NewLimits(Reasoned):
    """Limits of those accounts that have none of their own."""

    one_time: Limit
    daily: Limit


class UserView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    user_id: UUID
    active: bool
    limit_total: int | None
    free_transfers: int


class UserDetail(UserView):
    signs_in_as: str | None
    accounts: list[AccountView]


class UserPage(BaseModel):
    """Users by their ids; `next_cursor` continues the list, null at its end."""

    items: list[UserView]
    next_cursor: str | None


class AccountTypeView(BaseModel):
    name: str
    one_time: int
    daily: int


class AccountTypeList(BaseModel):
    items: list[AccountTypeView]


class ActView(BaseModel):
    """What an administrator did, to what, and why."""

    model_config = ConfigDict(from_attributes=True)

    administrator: str
    kind: ActKind
    subject: str = Field(description="The id of the account or user, or a name.")
    reason: str
    details: dict[str, Any]
    done_at: datetime


class ActPage(BaseModel):
    """Acts, newest first; `next_cursor` continues the list, null at its end."""

    items: list[ActView]
    next_cursor: str | None


def add_users(app: FastAPI, parts: Parts) -> None:
    """The routes of users and of how they sign in."""
    units = parts.units
    passwords: Passwords = app.state.sign_in.passwords  # few hashes at once, whoever asks for them
    known = problem_responses(NO_USER, *FOR_ADMINISTRATORS)
    changed = problem_responses(NO_USER, *FOR_ADMINISTRATORS, FOREIGN)

    @app.get("/admin/users", responses=problem_responses(*FOR_ADMINISTRATORS))
    async def list_users(_who: Administrator, cursor: Cursor = "", limit: PageSize = PAGE_SIZE) -> UserPage:
        after = pages.decode_id(cursor) if cursor else None
        async with units.begin() as uow:
            fetch = partial(rows.list_members, uow.connection, after)
            users, next_cursor = await page_of(fetch, limit, attrgetter("user_id"))
        return UserPage(items=[UserView.model_validate(user) for user in users], next_cursor=next_cursor)

    @app.get("/admin/users/{user_id:uuid}", responses=known)
    async def get_user(user_id: UUID, _who: Administrator) -> UserDetail:
        async with units.begin() as uow:
            user = await administration.get_user(uow, user_id)
            owned = await accounts.list_accounts(uow, user_id)
            name = await rows.find_name_of(uow.connection, user_id)
        view = UserView.model_validate(user).model_dump()
        return UserDetail(
            **view, signs_in_as=name, accounts=[AccountView.model_validate(account) for account in owned]
        )

    @app.put("/admin/users/{user_id:uuid}/limits", responses=changed)
    async def set_user_limits(user_id: UUID, new: NewUserLimits, who: Administrator) -> UserView:
        """Give a user a limit over all accounts, and free transfers a day."""
        async with units.begin() as uow:
            by = By(who, new.reason)
            user = await administration.set_user_limits(uow, by, user_id, new.limit_total, new.free_transfers)
        return UserView.model_validate(user)

    @app.put(
        "/admin/sign-ins/{name}",
        status_code=204,
        responses=problem_responses(NO_USER, NAME_TAKEN, *FOR_ADMINISTRATORS, FOREIGN),
    )
    async def set_sign_in(name: SignInName, new: NewSignIn, who: Administrator) -> None:
        """Have a user, or an administrator, sign in with this name and password; its sessions end."""
        password_hash = await passwords.hash(new.password)
        async with units.begin() as uow:
            await administration.set_sign_in(uow, By(who, new.reason), name, new.user_id, password_hash)


def add_types_and_acts(app: FastAPI, parts: Parts) -> None:
    """The routes of account types, and of what administrators did."""
    units = parts.units

    @app.get("/admin/account-types", responses=problem_responses(*FOR_ADMINISTRATORS))
    async def list_account_types(_who: Administrator) -> AccountTypeList:
        async with units.begin() as uow:
            types = await rows.list_account_types(uow.connection)
        return AccountTypeList(items=[_type_view(offered) for offered in types])

    @app.put(
        "/admin/account-types/{name}", responses=problem_responses(NO_ACCOUNT_TYPE, *FOR_ADMINISTRATORS, FOREIGN)
    )
    async def set_account_type(name: TypeInPath, new: NewLimits, who: Administrator) -> AccountTypeView:
        """Offer a type of account, or give the one of this name these limits."""
        offered = AccountType(name, Limits(new.one_time, new.daily))
        async with units.begin() as uow:
            administration.set_account_type(uow, By(who, new.reason), offered)
        return _type_view(offered)

    @app.get("/admin/acts", responses=problem_responses(*FOR_ADMINISTRATORS))
    async def list_acts(
        _who: Administrator,
        subject: Annotated[str | None, Query(max_length=100, pattern=r"^[!-~]+$")] = None,
        cursor: Cursor = "",
        limit: PageSize = PAGE_SIZE,
    ) -> ActPage:
        """What administrators did, newest first."""
        before = pages.decode_sequence(cursor) if cursor else None
        async with units.begin() as uow:
            fetch = partial(rows.list_acts, uow.connection, subject, before)
            acts, next_cursor = await page_of(fetch, limit, attrgetter("sequence"))
        return ActPage(items=[ActView.model_validate(one) for one in acts], next_cursor=next_cursor)


def _type_view(offered: AccountType) -> AccountTypeView:
    limits = offered.limits
    return AccountTypeView(name=offered.name, one_time=limits.one_time, daily=limits.daily)
