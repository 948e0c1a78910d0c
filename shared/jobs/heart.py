"""A worker's heart: keeps its row alive, and hears of cancels, on a connection of its own.

It beats on the worker's event loop, so that a worker whose loop is blocked counts as dead. When no beat came
through within the limit, the worker knows by its own clock that its leases are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Collection
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import psutil
import structlog
from uuid_utils.compat import uuid7

from shared.database import SESSION_LOST, session
from shared.jobs.leases import BEAT, CANCEL_CHANNEL, CANCELLED, REGISTER
from shared.settings import Settings

_log = structlog.get_logger(__name__)

_AGAIN_S = 1.0


class Body(Protocol):
    """The worker, as its heart knows it."""

    slots: int

    @property
    def running(self) -> int:
        """How many steps run."""
        ...

    def wake(self) -> None:
        """There may be steps to take."""
        ...

    def cancel(self, steps: Collection[UUID]) -> None:
        """These are to be cancelled."""
        ...

    def lose(self) -> None:
        """All leases are gone."""
        ...


class Heart:
    """Beats until it is cancelled. `worker` is the id under which steps are leased, None while there is none."""

    def __init__(self, settings: Settings, process_name: str, body: Body) -> None:
        self.worker: UUID | None = None
        self.draining = False
        """Somebody wants this worker to take no more steps."""
        self._settings = settings
        self._process_name = process_name
        self._body = body
        self._loop = asyncio.get_running_loop()
        self._look = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._memory = psutil.Process()

    async def run(self) -> None:
        """Survives the loss of PostgreSQL; leases do not, after the limit."""
        while True:
            try:
                async with session(self._settings, f"{self._process_name}-heart") as connection:
                    await self._live(connection)
            except SESSION_LOST as error:
                _log.warning("worker.database_lost", error=str(error) or type(error).__name__)
            await asyncio.sleep(_AGAIN_S)

    async def _live(self, connection: asyncpg.Connection[Any]) -> None:
        """Returns when the worker was found dead; it begins anew then."""
        connection.add_termination_listener(lambda *_: self._look.set())
        await connection.add_listener(CANCEL_CHANNEL, lambda *_: self._look.set())
        if self.worker is None:
            await self._register(connection)
        while await self._beat(connection):
            self._body.wake()
            self._look.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), self._settings.worker_beat_interval_s)
        self._expire()

    async def _register(self, connection: asyncpg.Connection[Any]) -> None:
        worker = uuid7()
        limit_s = self._settings.worker_beat_limit_s
        row = (self._process_name, socket.gethostname(), os.getpid(), self._body.slots)
        self._set_expiry()
        await connection.execute(REGISTER, worker, *row, limit_s)
        self.worker = worker
        _log.info("worker.registered", worker=str(worker), slots=self._body.slots)

    async def _beat(self, connection: asyncpg.Connection[Any]) -> bool:
        began_at = self._loop.time()
        worker, limit_s = self.worker, self._settings.worker_beat_limit_s
        rss_mib = self._memory.memory_info().rss / 2**20
        row = await connection.fetchrow(BEAT, worker, limit_s, self._body.running, rss_mib)
        if row is None or self.worker is None:
            return False
        self._set_expiry(began_at)
        self.draining = row["draining"]
        cancelled = await connection.fetch(CANCELLED, worker)
        if cancelled:
            self._body.cancel([UUID(bytes=one["id"].bytes) for one in cancelled])
        return True

    def _set_expiry(self, began_at: float | None = None) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        began_at = self._loop.time() if began_at is None else began_at
        self._expiry = self._loop.call_at(began_at + self._settings.worker_beat_limit_s, self._expire)

    def _expire(self) -> None:
        if self.worker is not None:
            _log.error("worker.lost", worker=str(self.worker))
            self.worker = None
            self._body.lose()
