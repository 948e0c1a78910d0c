"""Writes a backlog: orders placed and paid, users changed, through the services' own domain, tables and outbox.

Not over HTTP, which would take minutes. State rows and outbox rows are exactly those of a request; what is left
out is reading the user before and the answer after. All in one transaction of each service, so that the relays
find the whole backlog at one moment and its rate can be told.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from math import ceil
from typing import Any
from uuid import UUID

from sqlalchemy import text
from uuid_utils.compat import uuid7

from experiment.clock import Clock
from experiment.ledger import Entry, Outcome
from experiment.payload import note
from experiment.user_changes import write_changes
from experiment.workload import Backlog
from services.order import domain, store
from services.order.domain import KnownUser, Line, Order
from services.order.events import OrderPaid, OrderPlaced
from shared.broker import Message
from shared.database import Database
from shared.publishing import UnitOfWork, UnitsOfWork
from shared.settings import Settings
from shared.telemetry import Telemetry

_ORDERS_PER_FLUSH = 500
_NAME = "compare-backlog"
_NEWEST = text("select channel, type, key, body from outbox order by position desc limit :count")
# One statement inserts a part of the backlog; on a busy machine that may take longer than a request ever would.
_POSTGRES_TIMEOUT_S = 120.0


def settings_from(environment: Mapping[str, str]) -> Settings:
    """The settings of a service process, for using its code here; traces are not written."""
    fields = {name.removeprefix("TANDEM_").lower(): value for name, value in environment.items()}
    known = {name: value for name, value in fields.items() if name in Settings.model_fields}
    changed = {"otlp_dir": None, "postgres_timeout_s": _POSTGRES_TIMEOUT_S}
    return Settings.model_validate({**known, **changed})


async def write_backlog(
    settings: Settings,
    users: Sequence[str],
    backlog: Backlog,
    *,
    events: int,
    phase: str,
    seed: str,
    clock: Clock,
    note_bytes: int = 0,
    user_settings: Settings | None = None,
) -> list[Entry]:
    """Write `events` events and commit; returns their ledger entries, acknowledged at the time of the commit.

    `settings` are the order service's. Each order has a note of `note_bytes`. With the settings of the user
    service the backlog's share of changes of users is among them.
    """
    changes = round(events * backlog.updates_share) if user_settings else 0
    writer = _Writer([UUID(user) for user in users], backlog, phase, seed=seed, note_bytes=note_bytes, clock=clock)
    entries: list[Entry] = []
    async with AsyncExitStack() as both:  # so that they are committed one right after the other
        if user_settings and changes:
            of_users = await both.enter_async_context(_transaction(user_settings, "user"))
            entries += await write_changes(
                of_users, users, backlog.key_skew, count=changes, phase=phase, seed=seed, clock=clock
            )
        uow = await both.enter_async_context(_transaction(settings, "order"))
        while len(writer.entries) < events - changes:
            writer.write_part(uow, events - changes)
            await uow.flush()
    entries += writer.entries
    committed_s = clock.now_s()
    for entry in entries:
        entry.acknowledged_s = committed_s
        entry.outcome = Outcome.ACKNOWLEDGED
    return entries


@asynccontextmanager
async def units_of_work(settings: Settings, service: str) -> AsyncIterator[UnitsOfWork]:
    """Transactions on a service's database, on connections of their own."""
    telemetry = Telemetry(settings, service, _NAME)
    database = Database(settings, _NAME)
    try:
        yield UnitsOfWork(database, service, telemetry.spans)
    finally:
        await database.close()
        telemetry.shutdown()


@asynccontextmanager
async def _transaction(settings: Settings, service: str) -> AsyncIterator[UnitOfWork]:
    async with units_of_work(settings, service) as units, units.begin() as uow:
        yield uow


class _TakenBackError(Exception):
    """Nothing of a transaction is to be kept."""


async def backlog_messages(
    settings: Settings,
    users: Sequence[str],
    backlog: Backlog,
    *,
    events: int,
    seed: str,
    clock: Clock,
    note_bytes: int = 0,
) -> list[Message]:
    """What the relay would publish of such a backlog's orders, byte by byte: written, read, and taken back."""
    writer = _Writer(
        [UUID(user) for user in users], backlog, "layers", seed=seed, note_bytes=note_bytes, clock=clock
    )
    rows: Sequence[Any] = ()
    with suppress(_TakenBackError):
        async with _transaction(settings, "order") as uow:
            while len(writer.entries) < events:
                writer.write_part(uow, events)
                await uow.flush()
            # Whatever else waits there is committed, and has its place before these.
            rows = (await uow.connection.execute(_NEWEST, {"count": events})).all()
            raise _TakenBackError
    return [Message(row.channel, row.type, row.key, bytes(row.body)) for row in reversed(rows)]


class _Writer:
    def __init__(
        self,
        users: Sequence[UUID],
        backlog: Backlog,
        phase: str,
        *,
        seed: str,
        note_bytes: int,
        clock: Clock,
    ) -> None:
        self.entries: list[Entry] = []
        self._users = [KnownUser(user, active=True, version=1, traceparent=None) for user in users]
        self._lines = [Line(f"SKU-{n:04d}", n + 1, 1_250) for n in range(backlog.lines_per_order)]
        self._closed_share = backlog.closed_share
        self._phase = phase
        self._seed = seed
        self._rng = random.Random(seed)  # noqa: S311 - load, not secrets
        self._note_bytes = note_bytes
        self._clock = clock

    def write_part(self, uow: UnitOfWork, events: int) -> None:
        """Place some orders, then pay a share of them, until there are `events` entries in all."""
        now = datetime.now(UTC)
        placed: list[Order] = []
        orders_max = min(_ORDERS_PER_FLUSH, ceil(events / (1 + self._closed_share)))
        while len(self.entries) < events and len(placed) < orders_max:
            user, text = self._rng.choice(self._users), note(self._note_bytes, f"{self._seed}-{len(self.entries)}")
            order = domain.place(uuid7(), user, "EUR", self._lines, now, note=text)
            uow.tell(store.INSERT_ORDER, store.inserted(order))
            event = uow.publish(OrderPlaced.of(order), subject=str(order.id))
            self._enter(OrderPlaced.event_type, order, event.id)
            placed.append(order)
        for order in placed:
            if len(self.entries) < events and self._rng.random() < self._closed_share:
                paid = domain.pay(order, now)
                uow.tell(store.UPDATE_ORDER, store.changed(paid))
                event = uow.publish(OrderPaid.of(paid), subject=str(paid.id))
                self._enter(OrderPaid.event_type, paid, event.id)

    def _enter(self, event_type: str, order: Order, event_id: str) -> None:
        now_s = self._clock.now_s()
        self.entries.append(
            Entry(
                self._phase,
                event_type,
                now_s,
                key=str(order.id),
                sequence=order.version,
                sent_s=now_s,
                event_id=event_id,
            )
        )
