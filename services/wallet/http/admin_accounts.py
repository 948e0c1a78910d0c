"""What administrators do over HTTP with accounts and transfers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from services.wallet.domain.administration import By
from services.wallet.domain.limits import LimitException, LimitKind
from services.wallet.domain.postings import AMOUNT_MAX
from services.wallet.domain.transfers import TransferStatus
from services.wallet.handlers import administration, transfers
from services.wallet.http.accounts import EntryPage, entries_of
from services.wallet.http.admin_users import Limit, Reasoned, TypeName
from services.wallet.http.problems import (
    FOR_ADMINISTRATORS,
    FULL,
    FUNDS,
    NO_ACCOUNT,
    NO_ACCOUNT_TYPE,
    NO_TRANSFER,
    NO_USER,
)
from services.wallet.http.sign_in import Administrator
from services.wallet.http.transfers import TransferView
from services.wallet.store import administration as rows
from services.wallet.store.administration import AccountRow, TransferFilter
from shared.http import pages
from shared.http.application import IdempotencyKey
from shared.http.cross_origin import FOREIGN
from shared.http.idempotency import KEY_REUSED, Answer, answer_once
from shared.http.openapi import problem_responses
from shared.http.pages import PAGE_SIZE, Cursor, PageSize, page_of
from shared.http.timestamps import Timestamp
from shared.process import Parts
from shared.publishing import UnitOfWork


def _not_nothing(amount: int) -> int:
    if amount == 0:
        raise ValueError("0 changes nothing")
    return amount


class NewAccount(Reasoned):
    user_id: UUID
    type: TypeName
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), Field(examples=["KRW"])]


class Adjustment(Reasoned):
    """Money that comes in from outside, or leaves where `amount` is negative."""

    amount: Annotated[
        int,
        Field(strict=True, ge=-AMOUNT_MAX, le=AMOUNT_MAX, description="In the minor unit.", examples=[1_000_000]),
        AfterValidator(_not_nothing),
    ]


class OwnLimits(Reasoned):
    """Limits of the account's own; null has its type's hold."""

    one_time: Limit | None
    daily: Limit | None


class NewException(Reasoned):
    """Another limit, until `ends_at`."""

    kind: LimitKind
    amount: Limit
    ends_at: Timestamp


class ExceptionView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    kind: LimitKind
    amount: int
    granted_at: datetime
    ends_at: datetime


class AccountOfUserView(BaseModel):
    """An account as administrators see it; limits are its own, null where its type's hold."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    user_id: UUID
    type: str
    currency: str
    limit_one_time: int | None
    limit_daily: int | None
    balance: int
    held: int
    available: int
    frozen: bool
    opened_at: datetime


class AccountDetail(AccountOfUserView):
    exceptions: list[ExceptionView] = Field(description="That have not ended.")


class AccountOfUserPage(BaseModel):
    """Accounts, newest first; `next_cursor` continues the list, null at its end."""

    items: list[AccountOfUserView]
    next_cursor: str | None


class TransferOfUserView(TransferView):
    user_id: UUID = Field(description="The sender's user.")


class TransferPage(BaseModel):
    """Transfers, newest first; `next_cursor` continues the list, null at its end."""

    items: list[TransferOfUserView]
    next_cursor: str | None


def add_account_queries(app: FastAPI, parts: Parts) -> None:
    """What administrators read of accounts and transfers."""
    units = parts.units
    seen = problem_responses(*FOR_ADMINISTRATORS)

    @app.get("/admin/accounts", responses=seen)
    async def list_all_accounts(
        _who: Administrator, user_id: UUID | None = None, cursor: Cursor = "", limit: PageSize = PAGE_SIZE
    ) -> AccountOfUserPage:
        before = pages.decode_id(cursor) if cursor else None
        async with units.begin() as uow:
            fetch = partial(rows.list_account_rows, uow.connection, user_id, before)
            found, next_cursor = await page_of(fetch, limit, attrgetter("id"))
        items = [AccountOfUserView.model_validate(row) for row in found]
        return AccountOfUserPage(items=items, next_cursor=next_cursor)

    @app.get("/admin/accounts/{account_id:uuid}", responses=problem_responses(NO_ACCOUNT, *FOR_ADMINISTRATORS))
    async def get_any_account(account_id: UUID, _who: Administrator) -> AccountDetail:
        async with units.begin() as uow:
            return detail_of(*await administration.get_account(uow, account_id))

    @app.get(
        "/admin/accounts/{account_id:uuid}/entries", responses=problem_responses(NO_ACCOUNT, *FOR_ADMINISTRATORS)
    )
    async def list_any_entries(
        account_id: UUID, _who: Administrator, cursor: Cursor = "", limit: PageSize = PAGE_SIZE
    ) -> EntryPage:
        return await entries_of(parts, account_id, None, cursor, limit)

    @app.get("/admin/transfers", responses=seen)
    async def list_transfers(
        _who: Administrator,
        user_id: UUID | None = None,
        account_id: UUID | None = None,
        status: TransferStatus | None = None,
        cursor: Cursor = "",
        limit: PageSize = PAGE_SIZE,
    ) -> TransferPage:
        """Transfers that a user sent, that an account sends or receives, in a state; newest first."""
        before = pages.decode_id(cursor) if cursor else None
        wanted = TransferFilter(user_id=user_id, account_id=account_id, status=status)
        async with units.begin() as uow:
            fetch = partial(rows.list_transfers, uow.connection, wanted, before)
            found, next_cursor = await page_of(fetch, limit, attrgetter("id"))
        items = [TransferOfUserView.model_validate(one) for one in found]
        return TransferPage(items=items, next_cursor=next_cursor)

    @app.get("/admin/transfers/{transfer_id:uuid}", responses=problem_responses(NO_TRANSFER, *FOR_ADMINISTRATORS))
    async def get_any_transfer(transfer_id: UUID, _who: Administrator) -> TransferOfUserView:
        async with units.begin() as uow:
            return TransferOfUserView.model_validate(await transfers.get_transfer(uow, transfer_id))


def add_account_commands(app: FastAPI, parts: Parts) -> None:
    """What administrators do with accounts: each answers with the account as it is then."""
    units = parts.units
    refused = (*FOR_ADMINISTRATORS, FOREIGN, KEY_REUSED)
    change: dict[str, Any] = {
        "response_model": AccountDetail,
        "responses": problem_responses(NO_ACCOUNT, FUNDS, FULL, *refused),
    }
    path = "/admin/accounts/{account_id:uuid}"

    async def once(
        request: Request, key: str | None, who: str, work: Callable[[UnitOfWork], Awaitable[UUID]], status: int
    ) -> Response:
        async def answered(uow: UnitOfWork) -> Answer:
            account_id = await work(uow)
            await uow.flush()
            detail = detail_of(*await administration.get_account(uow, account_id))
            location = f"/admin/accounts/{account_id}" if status == 201 else None
            return Answer(status, detail.model_dump_json().encode(), location)

        return await answer_once(units, request, key, answered, of=who)

    async def frozen(
        account_id: UUID, new: Reasoned, who: str, request: Request, key: str | None, *, frozen: bool
    ) -> Response:
        async def work(uow: UnitOfWork) -> UUID:
            await administration.freeze(uow, By(who, new.reason), account_id, frozen=frozen)
            return account_id

        return await once(request, key, who, work, 200)

    @app.post(
        "/admin/accounts",
        status_code=201,
        response_model=AccountDetail,
        responses=problem_responses(NO_USER, NO_ACCOUNT_TYPE, *refused),
    )
    async def open_account(
        new: NewAccount, who: Administrator, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Open an account for a user, of a type that is offered."""

        async def work(uow: UnitOfWork) -> UUID:
            return await administration.open_account(uow, By(who, new.reason), new.user_id, new.type, new.currency)

        return await once(request, key, who, work, 201)

    @app.post(f"{path}/adjustments", **change)
    async def adjust(
        account_id: UUID, new: Adjustment, who: Administrator, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Post an amount from outside, or to outside where it is negative."""

        async def work(uow: UnitOfWork) -> UUID:
            await administration.adjust(uow, By(who, new.reason), account_id, new.amount)
            return account_id

        return await once(request, key, who, work, 200)

    @app.post(f"{path}/freeze", **change)
    async def freeze(
        account_id: UUID, new: Reasoned, who: Administrator, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Freeze an account: nothing leaves it or comes in; what is pending fails."""
        return await frozen(account_id, new, who, request, key, frozen=True)

    @app.post(f"{path}/thaw", **change)
    async def thaw(
        account_id: UUID, new: Reasoned, who: Administrator, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Take back a freeze."""
        return await frozen(account_id, new, who, request, key, frozen=False)

    @app.post(f"{path}/exceptions", **change)
    async def grant_exception(
        account_id: UUID, new: NewException, who: Administrator, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Have another limit hold until it ends."""
        exception = LimitException(new.kind, new.amount, datetime.now(UTC), new.ends_at)

        async def work(uow: UnitOfWork) -> UUID:
            await administration.grant_exception(uow, By(who, new.reason), account_id, exception)
            return account_id

        return await once(request, key, who, work, 200)

    @app.put(f"{path}/limits", responses=problem_responses(NO_ACCOUNT, *FOR_ADMINISTRATORS, FOREIGN))
    async def set_account_limits(account_id: UUID, new: OwnLimits, who: Administrator) -> AccountDetail:
        """Give an account limits of its own."""
        async with units.begin() as uow:
            await administration.set_account_limits(uow, By(who, new.reason), account_id, new.one_time, new.daily)
            await uow.flush()
            return detail_of(*await administration.get_account(uow, account_id))


def detail_of(row: AccountRow, exceptions: tuple[LimitException, ...]) -> AccountDetail:
    seen = AccountOfUserView.model_validate(row).model_dump()
    return AccountDetail(**seen, exceptions=[ExceptionView.model_validate(one) for one in exceptions])
