"""Unit of Work: one transaction that holds state, inbox and outbox.

A handler reads through `connection` and *tells* its changes; nothing is sent before `flush`, which groups
what was told by statement and sends each group once, with a list of parameters. So a handler written for
one event runs at group-commit speed when the pipeline gives it a batch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Executable, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database import Database
from shared.envelope import Envelope
from shared.event import EventData
from shared.publishing.bulk import insert_of_arrays
from shared.publishing.outbox import NOTIFY_CHANNEL, insert_outbox, outbox_row
from shared.telemetry import Spans

_NOTIFY = text(f"select pg_notify('{NOTIFY_CHANNEL}', '')")


class UnitOfWork:
    """Collects the changes and events of one transaction and sends them in groups.

    Changes told under one key are carried out in the order told, whatever else the batch holds.
    """

    def __init__(self, connection: AsyncConnection, service: str, spans: Spans) -> None:
        self.connection = connection
        self._service = service
        self._spans = spans
        self._outbox: list[Mapping[str, Any]] = []
        self._groups: list[tuple[Executable, list[Mapping[str, Any]]]] = []
        self._newest_group_of: dict[int, int] = {}
        self._last_group_of_key: dict[str, int] = {}
        self._cause: Envelope | None = None
        self._told_by_event: list[int] = []
        self._outbox_before_event = 0
        self.can_discard_event = True
        """Nothing that the event told has been sent yet."""

    def begin_event(self, event: Envelope) -> None:
        """Begin what `event` causes: told from here on is ordered among what its key told before."""
        self._cause = event
        self._told_by_event.clear()
        self._outbox_before_event = len(self._outbox)
        self.can_discard_event = True

    def discard_event(self) -> None:
        """Take back what was told and published since `begin_event`; of no use after a `flush`."""
        for group in reversed(self._told_by_event):
            self._groups[group][1].pop()
        self._told_by_event.clear()
        del self._outbox[self._outbox_before_event :]

    def tell(self, statement: Executable, row: Mapping[str, Any]) -> None:
        """Have `statement` (a module-level SQLAlchemy Core statement with bind parameters) run with `row`.

        Statements are told apart by identity: build them once, at import.
        """
        key = self._cause.key if self._cause else ""
        at_least = self._last_group_of_key.get(key, 0)
        group = self._newest_group_of.get(id(statement), -1)
        if group < at_least:
            group = len(self._groups)
            self._groups.append((statement, []))
            self._newest_group_of[id(statement)] = group
        self._groups[group][1].append(row)
        self._told_by_event.append(group)
        self._last_group_of_key[key] = group

    def publish(
        self, data: EventData, *, subject: str, key: str | None = None, link: str | None = None
    ) -> Envelope:
        """Write an event to the outbox, to be published once this transaction is committed.

        `subject` is the id of what the event is about; events with equal `key` (default: the subject) stay in
        order. Correlation, causation and trace context come from the event being handled or the request being
        served; `link` is the traceparent of another event that this one builds on. Raises `EventTooLargeError`.
        """
        cause = self._cause
        with self._spans.create(data.channel, data.event_type, subject, cause, link) as created:
            event = Envelope(
                id=created.event_id,
                source=f"/services/{self._service}",
                type=data.event_type,
                subject=subject,
                partitionkey=key or subject,
                dataschema=data.schema_uri(),
                traceparent=created.traceparent,
                correlationid=(cause.correlationid or cause.id) if cause else created.event_id,
                causationid=cause.id if cause else None,
                data=data.model_dump(mode="json"),
            )
            self._outbox.append(outbox_row(data.channel, event))
        return event

    async def flush(self) -> None:
        """Send everything told so far, in as few statements as order allows."""
        groups, self._groups = self._groups, []
        self._told_by_event.clear()
        self._outbox_before_event = 0
        self.can_discard_event = False
        self._newest_group_of.clear()
        self._last_group_of_key.clear()
        for statement, rows in groups:
            if rows:
                await self._send(statement, rows)
        rows, self._outbox = self._outbox, []
        if rows:
            await self._send(insert_outbox, rows)
            await self.connection.execute(_NOTIFY)

    async def _send(self, statement: Executable, rows: Sequence[Mapping[str, Any]]) -> None:
        bulk = insert_of_arrays(statement, tuple(rows[0])) if len(rows) > 1 else None
        if bulk is None:
            await self.connection.execute(statement, rows)
        else:
            await self.connection.execute(bulk, {name: [row[name] for row in rows] for name in rows[0]})


class UnitsOfWork:
    """Opens units of work on one service's database."""

    def __init__(self, database: Database, service: str, spans: Spans) -> None:
        self._database = database
        self._service = service
        self._spans = spans

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        """Open a transaction: flushed and committed on leaving, rolled back on any exception.

        Raises `UnavailableError` and `TransientError` as `database.database_errors` maps them.
        """
        async with self._database.transaction() as connection:
            uow = UnitOfWork(connection, self._service, self._spans)
            yield uow
            await uow.flush()
