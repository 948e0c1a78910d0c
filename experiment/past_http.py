"""Sends a schedule past HTTP: each request is one transaction of this process, through the services' own domain,
tables and outbox, committed at its time.

What a service would do besides is left out: reading the request, its idempotency key, the user, and the answer.
From the outbox on everything is as it is always.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiohttp
from uuid_utils.compat import uuid7

from experiment.backlog import units_of_work
from experiment.ledger import Entry, Outcome
from experiment.load import LoadGenerator, LoadReport
from experiment.payload import note
from experiment.schedule import Operation
from services.order import domain as orders
from services.order import store as order_store
from services.order.events import OrderCancelled, OrderPaid, OrderPlaced
from services.user import domain as users
from services.user import store as user_store
from services.user.events import UserProfileUpdated
from shared.errors import TandemError
from shared.publishing import UnitOfWork, UnitsOfWork
from shared.settings import Settings

_CLOSINGS: dict[str, tuple[Any, type[OrderPaid] | type[OrderCancelled]]] = {
    "pay": (orders.pay, OrderPaid),
    "cancel": (orders.cancel, OrderCancelled),
}


class OutboxLoad(LoadGenerator):
    """The load generator, with the transaction of each request in place of the request.

    `settings` are those of the services' processes, by service.
    """

    def __init__(self, settings: dict[str, Settings], *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._settings = settings
        self._units: dict[str, UnitsOfWork] = {}
        self._placed: dict[str, orders.Order] = {}

    async def run(
        self, operations: Sequence[Operation], phase: str, enough: asyncio.Event | None = None
    ) -> tuple[list[Entry], LoadReport]:
        """As with HTTP; connections are this phase's own."""
        async with AsyncExitStack() as stack:
            for service, settings in self._settings.items():
                self._units[service] = await stack.enter_async_context(units_of_work(settings, service))
            return await super().run(operations, phase, enough)

    async def _send(
        self, _session: aiohttp.ClientSession, operation: Operation, entry: Entry, order_id: str | None
    ) -> None:
        service = "user" if operation.kind == "update" else "order"
        entry.outcome = Outcome.INDETERMINATE
        entry.sent_s = self._clock.now_s()
        try:
            async with asyncio.timeout(self._timeout.total), self._units[service].begin() as uow:
                entry.key, entry.sequence, entry.event_id = await self._change(uow, operation, entry, order_id)
        except (TandemError, TimeoutError) as error:
            entry.error = type(error).__name__
            return
        entry.acknowledged_s = self._clock.now_s()
        entry.outcome = Outcome.ACKNOWLEDGED

    async def _change(
        self, uow: UnitOfWork, operation: Operation, entry: Entry, order_id: str | None
    ) -> tuple[str, int, str]:
        """Tell what is to be committed; key, sequence and id of its event."""
        now = datetime.now(UTC)
        if operation.kind == "update":
            user_id = UUID(self._users[operation.user])
            return await self._update(uow, user_id, f"Change {entry.idempotency_key}", now)
        if operation.kind == "place":
            user = orders.KnownUser(UUID(self._users[operation.user]), active=True, version=1, traceparent=None)
            lines = [orders.Line(line["sku"], line["quantity"], line["unit_amount"]) for line in self._lines]
            text = note(self._note_bytes, f"{self._seed}-{entry.idempotency_key}")
            order = orders.place(uuid7(), user, "EUR", lines, now, note=text)
            uow.tell(order_store.INSERT_ORDER, order_store.inserted(order))
            event = uow.publish(OrderPlaced.of(order), subject=str(order.id))
            self._placed[str(order.id)] = order
        else:
            close, kind = _CLOSINGS[operation.kind]
            order = close(self._placed.pop(str(order_id)), now)
            uow.tell(order_store.UPDATE_ORDER, order_store.changed(order))
            event = uow.publish(kind.of(order), subject=str(order.id))
        return str(order.id), order.version, event.id

    async def _update(self, uow: UnitOfWork, user_id: UUID, name: str, now: datetime) -> tuple[str, int, str]:
        user = await user_store.find_user(uow.connection, user_id, lock=True)
        assert user is not None, f"user {user_id} is not registered"
        user = users.update_profile(user, None, name, now)
        uow.tell(user_store.UPDATE_USER, user_store.changed(user))
        return str(user.id), user.version, uow.publish(UserProfileUpdated.of(user), subject=str(user.id)).id
