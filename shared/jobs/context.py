"""What a handler may ask for besides its arguments: which step it is, what it may tell, and how far it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Executable, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.event import EventData
from shared.jobs.errors import NoCursorError
from shared.process import Parts
from shared.publishing import UnitOfWork

_READ_ONLY = text("set transaction read only")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A portion of a long step's work. `cursor` is a JSON value from which the next portion is read."""

    items: Any
    cursor: Any


ReadChunk = Callable[[Any], Awaitable[Chunk | None]]
"""Reads the portion behind a cursor, None at first; None when nothing is left."""


class LeasedAttempt(Protocol):
    """What a leased step has instead of a transaction."""

    def report(self, current: float, total: float, message: str = "") -> None:
        """Say how far the step is."""
        ...

    def tell(self, statement: Executable, row: Mapping[str, Any]) -> None:
        """Have a statement run in the transaction of the next checkpoint, or of the completion."""
        ...

    def publish(self, data: EventData, *, subject: str, key: str | None = None) -> None:
        """Have an event published by the same."""
        ...

    def iterate(self, read: ReadChunk) -> AsyncIterator[Any]:
        """Go through portions, with a checkpoint behind each."""
        ...


@dataclass(frozen=True, slots=True)
class JobContext:
    """One attempt of one step, given to the parameter of this type. `attempt` counts from 1.

    `due_at` is when the job was due: for that of a schedule its logical date, however late it runs.
    """

    job_id: UUID
    step_id: UUID
    attempt: int
    due_at: datetime
    unit: UnitOfWork | None = None
    port: LeasedAttempt | None = None
    process: Parts | None = None

    @property
    def parts(self) -> Parts:
        """The parts of the worker's process: its settings, its circuit breakers.

        Raises `RuntimeError` in inline steps and in children, which do not run in a worker's event loop.
        """
        if self.process is None:
            raise RuntimeError("only a leased step in the event loop has the parts of its process")
        return self.process

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction that only reads: what is to be written is told. Raises as `parts`."""
        async with self.parts.units.begin() as uow:
            await uow.connection.execute(_READ_ONLY)
            yield uow.connection

    @property
    def uow(self) -> UnitOfWork:
        """The unit of work that completes the step: what is told to it takes effect exactly if the step does.

        Raises `RuntimeError` in a leased step, which runs in no transaction.
        """
        if self.unit is None:
            raise RuntimeError("a leased step runs in no transaction")
        return self.unit

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt of this step and in no other's: for mail, payments and the like."""
        return str(self.step_id)

    def report(self, current: float, total: float, message: str = "") -> None:
        """Say that the step is at `current` of `total`. Cheap to call often: at most once a second it is written
        down. An inline step is over before anybody could look, so it is ignored there."""
        if self.port is not None:
            self.port.report(current, total, message)

    def tell(self, statement: Executable, row: Mapping[str, Any]) -> None:
        """As `UnitOfWork.tell`; in a leased step carried out in the transaction that completes it."""
        (self.port or self.uow).tell(statement, row)

    def publish(self, data: EventData, *, subject: str, key: str | None = None) -> None:
        """As `UnitOfWork.publish`; in a leased step carried out in the transaction that completes it."""
        if self.port is not None:
            self.port.publish(data, subject=subject, key=key)
        else:
            self.uow.publish(data, subject=subject, key=key)

    def iterate(self, read: ReadChunk) -> AsyncIterator[Any]:
        """The items of chunk after chunk: `async for items in ctx.iterate(read)`.

        What is told while a chunk is worked on and the cursor behind it are committed together, before the next
        one is read: a step that is killed, or interrupted by a deployment, goes on behind its last chunk. Raises
        `NoCursorError` where there is none: in inline steps, and in those that run in a process. It is permanent,
        so that the step fails at once and says why.
        """
        if self.port is None:
            raise NoCursorError("an inline step has no cursor: make it leased")
        return self.port.iterate(read)
