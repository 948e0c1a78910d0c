"""What the page shows of a member's: accounts, entries, and what becomes of transfers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from services.wallet.domain.accounts import Account, AccountNotFoundError
from services.wallet.domain.transfers import Transfer, TransferEndedError, TransferStatus
from services.wallet.handlers import transfers
from services.wallet.handlers.accounts import list_accounts
from services.wallet.http.accounts import entries_of
from services.wallet.http.page.door import Door
from services.wallet.http.page.forms import account_of, empty
from services.wallet.http.page.views import HAPPENED, Views
from services.wallet.http.problems import ENDED
from services.wallet.http.turns import turn
from shared.process import Parts

WATCHED_FOR: Final = timedelta(minutes=10)
"""So long after its request the page looks by itself whether a transfer has ended; later, when somebody asks."""
_ENTRIES: Final = 10
_PENDING_MAX: Final = 20


class Looking:
    """Everything of the page that changes nothing, and taking back what is pending."""

    def __init__(self, parts: Parts, views: Views, door: Door) -> None:
        self._parts = parts
        self._views = views
        self._door = door

    async def show(self, request: Request) -> Response:
        """The whole page, with the entries of the account that the query chooses, or of the first."""
        member, name = await self._door.who(request)
        accounts = await accounts_of(self._parts, member)
        chosen = account_of(request.query_params.get("account_id"), accounts) or next(iter(accounts), None)
        entries = None if chosen is None else await entries_of(self._parts, chosen.id, member, "", _ENTRIES)
        async with self._parts.units.begin() as uow:
            pending = await transfers.list_transfers(uow, member, TransferStatus.PENDING, None, _PENDING_MAX)
        values = {
            "name": name,
            "accounts": accounts,
            "chosen": chosen,
            "entries": entries,
            "pending": pending,
            "form": empty(None if chosen is None else chosen.id),
        }
        return self._views.render(request, "page.html", values)

    async def list_accounts(self, request: Request) -> Response:
        member, _ = await self._door.who(request)
        return self._views.render(request, "accounts.html", {"accounts": await accounts_of(self._parts, member)})

    async def list_entries(self, request: Request) -> Response:
        """Entries from the beginning, with their heading; from a cursor on, the entries alone."""
        member, _ = await self._door.who(request)
        chosen = account_of(request.query_params.get("account_id"), await accounts_of(self._parts, member))
        if chosen is None:
            raise AccountNotFoundError("no account of this id is yours")
        cursor = request.query_params.get("cursor", "")
        entries = await entries_of(self._parts, chosen.id, member, cursor, _ENTRIES)
        name = "more_entries.html" if cursor else "entries.html"
        return self._views.render(request, name, {"chosen": chosen, "entries": entries})

    async def watch(self, request: Request) -> Response:
        """How a transfer ended; 204 while it is pending, so that nothing is told again and again."""
        member, _ = await self._door.who(request)
        async with self._parts.units.begin() as uow:
            found = await transfers.get_transfer(uow, request.path_params["transfer_id"], sent_by=member)
        late = datetime.now(UTC) - found.requested_at >= WATCHED_FOR
        if found.status is TransferStatus.PENDING and not late:
            return Response(status_code=HTTPStatus.NO_CONTENT, headers={"cache-control": "no-store"})
        return self._state(request, found, late=late)

    async def cancel(self, request: Request) -> Response:
        """Take a transfer back; one that has ended meanwhile is shown as it is."""
        member, _ = await self._door.who(request)
        transfer_id: UUID = request.path_params["transfer_id"]
        try:
            async with turn(request, member), self._parts.units.begin() as uow:
                cancelled = await transfers.cancel_transfer(uow, transfer_id, sent_by=member)
            return self._state(request, cancelled)
        except TransferEndedError:
            async with self._parts.units.begin() as uow:
                found = await transfers.get_transfer(uow, transfer_id, sent_by=member)
            return self._state(request, found, ENDED.status)

    def _state(
        self, request: Request, transfer: Transfer, status: int = HTTPStatus.OK, *, late: bool = False
    ) -> Response:
        response = self._views.render(request, "state.html", {"transfer": transfer, "late": late}, status)
        if transfer.status is not TransferStatus.PENDING:
            response.headers["hx-trigger"] = HAPPENED
        return response


async def accounts_of(parts: Parts, member: UUID) -> list[Account]:
    """A member's accounts as they are now."""
    async with parts.units.begin() as uow:
        return await list_accounts(uow, member)
