"""The session in which a worker hears that steps are ready, and takes them.

One for both: the process of the server that has told of a step has just run when it is asked for it, and a session
that is held need not be had from a pool before a step begins, nor be given back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database import Database, network_errors
from shared.jobs.store import STEP_CHANNEL, read_ready
from shared.settings import Settings


class Wake(Protocol):
    def __call__(self, handler: str = "", step: UUID | None = None) -> None:
        """There may be steps to take: of this handler, or of any; of that one `step`, if it is no more."""


@asynccontextmanager
async def taking(settings: Settings, process_name: str, wake: Wake) -> AsyncIterator[AsyncConnection]:
    """A connection on which each statement is a transaction; `wake` is called at first, with what is told there,
    and when it has ended.

    Raises `UnavailableError` and `TransientError`, also for what is raised in the block.
    """
    database = Database(settings.model_copy(update={"postgres_pool_max": 1}), f"{process_name}-taking")
    try:
        async with database.statement() as connection:
            with network_errors():
                await _listen(connection, wake)
            yield connection
    finally:
        await database.close()


async def _listen(connection: AsyncConnection, wake: Wake) -> None:
    session: Any = (await connection.get_raw_connection()).driver_connection
    session.add_termination_listener(lambda *_: wake())
    await session.add_listener(STEP_CHANNEL, lambda *told: wake(*read_ready(told[-1])))
    wake()
