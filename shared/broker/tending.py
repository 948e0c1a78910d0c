"""What both adapters do to notice that a stream cannot go on: they look after it, and tell what is missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from shared import cancellation
from shared.broker.base import Trouble
from shared.errors import UnavailableError

_log = structlog.get_logger(__name__)

TEND_INTERVAL_S = 5.0
_STANDS_STILL_S = 50.0
"""With the time between two looks, before and after, it is told within a minute."""


class Tending:
    """Calls `tend` every `TEND_INTERVAL_S`, and keeps what it found in trouble the last time."""

    def __init__(self, tend: Callable[[], Awaitable[Mapping[str, Trouble]]]) -> None:
        self._tend = tend
        self._task: asyncio.Task[None] | None = None
        self.troubles: Mapping[str, Trouble] = {}

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="tending")

    async def stop(self) -> None:
        if self._task is not None:
            await cancellation.end(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TEND_INTERVAL_S)
            try:
                found = await self._tend()
            except UnavailableError as error:
                found = {"broker": Trouble(f"cannot be asked: {error}")}
            except Exception as error:  # noqa: BLE001 - whoever looks after the others must not die in silence
                _log.exception("tending.failed")
                found = {"tending": Trouble(f"failed: {error!r}")}
            self._note(found)

    def _note(self, found: Mapping[str, Trouble]) -> None:
        for place, trouble in found.items():
            if self.troubles.get(place) != trouble:
                _log.warning("broker.trouble", place=place, reason=trouble.reason)
        for place in self.troubles.keys() - found.keys():
            _log.info("broker.trouble_over", place=place)
        self.troubles = found


class Standstill:
    """Tells which places have something waiting and have not moved on for about a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: Mapping[str, tuple[int, float]] = {}

    def look(self, positions: Mapping[str, int]) -> dict[str, Trouble]:
        """`positions` says, of each place where something waits now, how far it got: any number that changes when
        something is finished."""
        now = self._clock()
        self._seen = {
            place: seen if (seen := self._seen.get(place)) and seen[0] == position else (position, now)
            for place, position in positions.items()
        }
        return {
            place: Trouble("stands still, with events waiting")
            for place, (_position, since) in self._seen.items()
            if now - since >= _STANDS_STILL_S
        }
