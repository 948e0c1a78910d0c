"""Slots: how many steps a worker runs at once, and how many it leases ahead of that.

A transaction for each lease would cost more than a short step. So a lane whose steps are short has as many leased
ahead as its slots run within `AHEAD_S`; steps that take longer are never leased before they can begin. Who waits
behind longer ones than that all the same goes back after `WAIT_MAX_S`, and another worker may have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

AHEAD_S: Final = 0.2
AHEAD_MAX: Final = 50
"""For each slot."""
WAIT_MAX_S: Final = 2.0
_WEIGHT = 0.1


class WaitedTooLongError(Exception):
    """A step that was leased ahead did not begin in time."""


class Slots:
    """Some slots, and the steps that have or await them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.used = 0
        """Leased and not ended, running or not."""
        self._gate = asyncio.Semaphore(count)
        self._mean_s: float | None = None

    @property
    def ahead(self) -> int:
        """How many steps are leased beyond the slots, at most."""
        if self._mean_s is None:
            return 0
        return self.count * min(AHEAD_MAX, int(AHEAD_S / max(self._mean_s, 1e-6)))

    def free(self) -> int:
        """How many more are to be leased now: none before half of those ahead have begun."""
        ahead = self.ahead
        return self.count + ahead - self.used if self.used <= self.count + ahead // 2 else 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """A slot, while the step runs. Raises `WaitedTooLongError`."""
        try:
            async with asyncio.timeout(WAIT_MAX_S):
                await self._gate.acquire()
        except TimeoutError:
            raise WaitedTooLongError from None
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            yield
        finally:
            self._gate.release()
            took_s = loop.time() - began_at
            self._mean_s = took_s if self._mean_s is None else self._mean_s + _WEIGHT * (took_s - self._mean_s)
