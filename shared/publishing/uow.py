"""Unit of Work: one transaction that holds state, inbox and outbox.

A handler reads through `connection` and *tells* its changes; nothing is sent before `flush`, which groups
what was told by statement and sends each group once, with a list of parameters. So a handler written for
one event runs at group-commit speed when the pipeline gives it a batch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from copy import copy
from typing import Any, Protocol, TypeVar, cast

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database import Database
from shared.envelope import Envelope
from shared.event import EventData
from shared.publishing.direct import Directly
from shared.publishing.fence import Fence, put_before
from shared.publishing.leading import Leading
from shared.publishing.submitting import Firing, Options, Submitted, Submitter
from shared.publishing.telling import TellsRelays
from shared.publishing.told import Answer, Row, Told, runs_once
from shared.publishing.written import Cause, Published, written
from shared.telemetry import Spans


class Part(Protocol):
    """What collects something of its own in a unit of work, to send it all at once: see `UnitOfWork.part`."""

    def begin_event(self) -> None:
        """An event begins: what is collected from here on is its."""
        ...

    def discard_event(self) -> None:
        """Take back what was collected since `begin_event`."""
        ...

    async def flush(self, uow: UnitOfWork) -> None:
        """Send what was collected; it may tell and publish."""
        ...


PartT = TypeVar("PartT", bound=Part)

_REQUEST = Cause(None, None, None)
"""Of an event of the request being served: its span is the running one, which the event's own finds by itself."""


class UnitOfWork:
    """Collects the changes and events of one transaction and sends them in groups.

    Changes told under one key are carried out in the order told, whatever else the batch holds.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        service: str,
        spans: Spans,
        submitter: Submitter | None = None,
        *,
        begin: Callable[[], None] | None = None,
        leading: Leading | None = None,
        directly: Directly | None = None,
    ) -> None:
        self._connection = connection
        self._begin = begin  # the transaction, where it has not begun yet
        self._relays = TellsRelays(leading, directly)
        self._service = service
        self._spans = spans
        self._submitter = submitter
        self._parts: dict[object, Part] = {}
        self._outbox: list[Mapping[str, Any]] = []
        self._told_directly: Mapping[str, Any] | None = None
        self._told = Told()
        self._cause: Envelope | None = None
        self._outbox_before_event = 0
        self._acts: list[Callable[[], None]] = []
        self._acts_before_event = 0
        self.can_discard_event = True
        """Nothing that the event told has been sent yet."""
        self.fence: Fence | None = None
        """A row that goes into the first statement of the last flush, or before it: behind every savepoint."""
        self.used_transaction = False
        """It was more than one statement."""

    @property
    def connection(self) -> AsyncConnection:
        """For statements in the transaction, which begins with the first of them."""
        self.used_transaction = True
        if self._begin is not None:
            self._begin()
            self._begin = None
        return self._connection

    @property
    def is_lone(self) -> bool:
        """Whether it may be one statement still, the row in the inbox included."""
        return self.fence is not None and not self.used_transaction

    @property
    def reads(self) -> AsyncConnection:
        """For reading without locks. No transaction begins for it: in one, too, a read sees what is committed."""
        return self._connection

    def begin_event(self, event: Envelope) -> None:
        """Begin what `event` causes: told from here on is ordered among what its key told before."""
        self._cause = event
        self._told.begin_event()
        self._outbox_before_event = len(self._outbox)
        self._acts_before_event = len(self._acts)
        self.can_discard_event = True
        for part in self._parts.values():
            part.begin_event()

    def discard_event(self) -> None:
        """Take back what was told and published since `begin_event`; of no use after a `flush`."""
        self._told.discard_event()
        del self._outbox[self._outbox_before_event :]
        del self._acts[self._acts_before_event :]
        for part in self._parts.values():
            part.discard_event()

    def part(self, owner: object, make: Callable[[], PartT]) -> PartT:
        """The part of this unit that belongs to `owner`, made when it is first asked for.

        It is flushed once for all events of a batch, before what was told and published.
        """
        if owner not in self._parts:
            self._parts[owner] = make()
        return cast("PartT", self._parts[owner])

    async def submit(
        self,
        graph: Any,
        *,
        kind: str | None = None,
        unique: str | None = None,
        unique_s: float | None = None,
        priority: int = 0,
        delay_s: float = 0.0,
        firing: Firing | None = None,
        tenant: str | None = None,
    ) -> Submitted:
        """Submit a job (`shared.jobs`): it exists exactly if this transaction is committed.

        `kind` is what it is listed as, its first handler's name unless said. While a job with the key `unique` is
        open, or for `unique_s` seconds, that one is returned instead. It begins after `delay_s`. `firing` says
        which job it is, for a schedule. Leased steps of different `tenant`s take turns. Raises `RuntimeError` in a
        service without jobs, `BadArgumentsError` for what a handler does not take.
        """
        if self._submitter is None:
            raise RuntimeError(f"{self._service} has no jobs")
        options = Options(
            kind=kind,
            unique=unique,
            unique_s=unique_s,
            priority=priority,
            delay_s=delay_s,
            firing=firing,
            tenant=tenant,
        )
        return await self._submitter.submit(self, graph, options)

    def after_commit(self, act: Callable[[], None]) -> None:
        """Have `act` called once this transaction is committed: never if it is not, and perhaps never if it is,
        since the process may end first. It must not wait, nor raise."""
        self._acts.append(act)

    def committed(self) -> None:
        """Do what was to be done after the commit."""
        self._relays.committed()
        for act in self._acts:
            act()

    def origin(self) -> Cause:
        """What is told now follows from: the event being handled, else the request being served."""
        if self._cause is None:
            return Cause(None, self._spans.current(), None)
        return Cause(self._cause.id, self._cause.traceparent, self._cause.correlationid or self._cause.id)

    def tell(self, statement: Executable, row: Mapping[str, Any]) -> None:
        """Have `statement` (a module-level SQLAlchemy Core statement with bind parameters) run with `row`.

        Statements are told apart by identity: build them once, at import.
        """
        self._told.add(self._cause.key if self._cause else "", statement, row)

    def tell_whole(self, statement: Executable, parameters: Row, answer: Answer | None = None) -> None:
        """Have `statement` run with `parameters` before all else that is told: for parts, in their `flush`. Its
        rows go to `answer`, perhaps when they are committed."""
        self._told.add_whole(statement, parameters, answer)

    def publish(
        self,
        data: EventData,
        *,
        subject: str,
        key: str | None = None,
        link: str | None = None,
        cause: Cause | None = None,
    ) -> Published:
        """Write an event to the outbox, to be published once this transaction is committed.

        `subject` is the id of what the event is about; events with equal `key` (default: the subject) stay in
        order. Correlation, causation and trace context come from the event being handled or the request being
        served, or are those of `cause`; `link` is the traceparent of another event that this one builds on.
        Raises `EventTooLargeError`.
        """
        parent = None if cause is None else cause.traceparent
        if cause is None:
            cause = _REQUEST if self._cause is None else self.origin()
        caused_in = cause.traceparent if cause.event_id is not None or parent is not None else None
        with self._spans.create(
            data.channel, data.event_type, subject, caused_in, link=link, parent=parent
        ) as created:
            source = f"/services/{self._service}"
            row = written(data, created, cause, source=source, subject=subject, key=key or subject)
        self._outbox.append(row)
        if data.told_directly and self._cause is None:  # or the consumers are at work
            self._told_directly = row
        return Published(row)

    async def flush(self, *, last: bool = False) -> None:
        """Send everything told so far, in as few statements as order allows.

        If it is the `last`, and one statement is all that there is, that is a transaction by itself.
        """
        for part in list(self._parts.values()):
            await part.flush(self)
        answers, statements, first = self._told.take_answers(), self._told.take(), 0
        self._outbox_before_event = 0
        self.can_discard_event = False
        rows, self._outbox = self._outbox, []
        says_places = self._relays.add_events(statements, rows, last=last, told=self._told_directly)
        if self.fence is not None and last:
            first = put_before(statements, self.fence)
        alone = last and len(statements) == 1 and runs_once(statements[0][1])
        for place, (statement, parameters) in enumerate(statements, -first):
            connection = self._connection if alone else self.connection
            result = await connection.execute(statement, parameters)
            if (answer := answers.get(place)) is not None:
                answer(result.all())
        if says_places:  # the last of them
            self._relays.answered(result.all())


class UnitsOfWork:
    """Opens units of work on one service's database."""

    def __init__(self, database: Database, service: str, spans: Spans, leading: Leading | None = None) -> None:
        """`leading` knows which relays lead in this process, where some may."""
        self._leading = leading
        self._directly = Directly()
        self._database = database
        self._service = service
        self._spans = spans
        self.submitter: Submitter | None = None
        """Who writes jobs down, in a service that has some; its process says it."""

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        """Open a transaction: flushed and committed on leaving, rolled back on any exception. It begins when it is
        first needed.

        Raises `UnavailableError` and `TransientError` as `database.database_errors` maps them.
        """
        async with self._database.late_transaction() as (connection, begin):
            uow = self._unit(connection, begin)
            yield uow
            await uow.flush(last=True)
        uow.committed()

    def _unit(self, connection: AsyncConnection, begin: Callable[[], None]) -> UnitOfWork:
        return UnitOfWork(
            connection,
            self._service,
            self._spans,
            self.submitter,
            begin=begin,
            leading=self._leading,
            directly=self._directly,
        )

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """A connection for a statement that is a transaction by itself; for several, each is one. Nothing is
        published by it. Raises as `begin`."""
        async with self._database.statement() as connection:
            yield connection

    def on(self, database: Database) -> UnitsOfWork:
        """The same, whatever it is, on other connections to the service's database."""
        units = copy(self)
        units._database = database  # noqa: SLF001 - of its own class
        return units
