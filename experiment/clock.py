"""Tells the time of a run, by one clock that never steps, and waits for conditions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Clock:
    """Seconds since the epoch that never step: the wall clock read once, the monotonic clock added.

    PostgreSQL stamps commits with the same host's wall clock; `drift_s` says how far that has moved against ours.
    """

    def __init__(self) -> None:
        self._wall_s = time.time()
        self._monotonic_s = time.monotonic()

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return self._wall_s + time.monotonic() - self._monotonic_s

    def at_s(self, monotonic_ns: int) -> float:
        """What this clock showed at a moment of `time.monotonic_ns`, in any process of this host."""
        return self._wall_s + monotonic_ns / 1e9 - self._monotonic_s

    def drift_s(self) -> float:
        """Wall clock minus ours, now; positive when the wall clock ran ahead."""
        return time.time() - self.now_s()


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float, poll_s: float) -> bool:
    """Wait until `condition` holds, asking every `poll_s`; False when it does not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(poll_s)
    return True
