"""The session in which a worker hears that steps are ready, and takes them.

One for both: the process of the server that has told of a step has just run when it is asked for it, and what is
held need not be had from a pool before a step begins, nor be given back. One step that is known is asked for by
the driver's own call: SQLAlchemy's part before and after it takes half as long as the server's. What that is worth
is in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol
from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database import Database, network_errors
from shared.errors import UnavailableError
from shared.jobs import leases
from shared.jobs.leases import Taken
from shared.jobs.store import STEP_CHANNEL, read_ready
from shared.settings import Settings


class Wake(Protocol):
    def __call__(self, handler: str = "", step: UUID | None = None) -> None:
        """There may be steps to take: of this handler, or of any; of that one `step`, if it is no more."""


class Taking:
    """A session in which each statement is a transaction. All raise `UnavailableError` and `TransientError` out of
    the block of `taking`."""

    def __init__(self, connection: AsyncConnection, session: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self._session = session

    async def listen(self, wake: Wake) -> None:
        """Have `wake` called with what is told from now on, and when the session has ended."""
        self._session.add_termination_listener(lambda *_: wake())
        with _driver_errors():
            await self._session.add_listener(STEP_CHANNEL, lambda *told: wake(*read_ready(told[-1])))

    async def take(self, worker: UUID, queue: str, handlers: Collection[str], free: int) -> Sequence[Taken]:
        """See `leases.take`."""
        return await leases.take(self._connection, worker, queue, handlers, free)

    async def take_one(self, worker: UUID, queue: str, handlers: Collection[str], step: UUID) -> Sequence[Taken]:
        """The same of this step, or none."""
        with _driver_errors():
            rows = await self._session.fetch(leases.TAKE_ONE, worker, step, queue, list(handlers))
        return [Taken(*row) for row in rows]


@asynccontextmanager
async def taking(settings: Settings, process_name: str, wake: Wake) -> AsyncIterator[Taking]:
    """A session that is told of steps; `wake` is called at first, too."""
    database = Database(settings.model_copy(update={"postgres_pool_max": 1}), f"{process_name}-taking")
    try:
        async with database.statement() as connection:
            raw = await connection.get_raw_connection()
            session = Taking(connection, raw.driver_connection)  # type: ignore[arg-type]
            await session.listen(wake)
            wake()
            yield session
    finally:
        await database.close()


@contextmanager
def _driver_errors() -> Iterator[None]:
    """What the driver raises by itself, and `shared.database` maps only where SQLAlchemy has called it."""
    try:
        with network_errors():
            yield
    except asyncpg.InternalClientError as error:  # it has lost track of its session
        raise UnavailableError(f"PostgreSQL: {error}") from error
