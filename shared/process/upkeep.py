"""Upkeep: tables that would grow for ever are pruned, once an hour and in portions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database import Database
from shared.errors import TransientError

_INTERVAL_S = 3_600.0
_ROWS_MAX = 5_000

Prune = Callable[[AsyncConnection, float, int], Awaitable[int]]
"""Deletes rows older than so many seconds, at most so many of them, and returns how many it deleted."""


async def keep_pruning(database: Database, prune: Prune, retention_s: float) -> None:
    """Prune now and every hour; never returns by itself."""
    while True:
        with contextlib.suppress(TransientError):  # the next hour is soon enough
            count = _ROWS_MAX
            while count >= _ROWS_MAX:
                async with database.transaction() as connection:
                    count = await prune(connection, retention_s, _ROWS_MAX)
        await asyncio.sleep(_INTERVAL_S)
