"""Requests that change what one member may send wait for each other here, where waiting costs nothing.

They would in the database, for the lock on the member, each with a connection: a few who are in a hurry would take
all of them, and nobody else would be answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from starlette.requests import Request

from shared.errors import UnavailableError

WAITING_MAX: Final = 500
"""Requests of one member in one process; more are turned away."""
WAIT_S: Final = 10.0
"""As long as anybody waits for a connection, by default."""


@dataclass(slots=True)
class _Lane:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    inside: int = 0


class Turns:
    """Those of one process: one request of a member after the other, in the order in which they came."""

    def __init__(self) -> None:
        self._lanes: dict[UUID, _Lane] = {}

    @asynccontextmanager
    async def of(self, member: UUID) -> AsyncIterator[None]:
        """Wait until nobody else is inside. Raises `UnavailableError` where too many wait, or for too long."""
        lane = self._lanes.setdefault(member, _Lane())
        if lane.inside >= WAITING_MAX:
            raise UnavailableError(f"{WAITING_MAX} requests of this member wait already")
        lane.inside += 1
        try:
            await _acquire(lane.lock)
            try:
                yield
            finally:
                lane.lock.release()
        finally:
            lane.inside -= 1
            if not lane.inside:
                del self._lanes[member]


async def _acquire(lock: asyncio.Lock) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            await lock.acquire()
    except TimeoutError as error:
        raise UnavailableError("others of this member's requests take too long") from error


@asynccontextmanager
async def turn(request: Request, member: UUID) -> AsyncIterator[None]:
    """The request's turn among those of the member.

    Raises as `Turns.of`, and where its client has gone meanwhile, who may be asking again behind it.
    """
    turns: Turns = request.app.state.turns
    await request.body()  # or the look for who has gone would take it
    async with turns.of(member):
        if await request.is_disconnected():
            raise UnavailableError("who asked has gone")
        yield
