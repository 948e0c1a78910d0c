"""Watches how much of the machine has nothing to do, moment by moment."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil

from experiment.clock import Clock

_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Idle:
    """Seconds that all cores together have been idle, at moments in seconds since the epoch; both only grow."""

    at_s: list[float] = field(default_factory=list)
    idle_s: list[float] = field(default_factory=list)

    def cores(self, begin_s: float, end_s: float) -> float:
        """How many cores were idle between two moments, on average. Raises `ValueError` if it was not watched."""
        if not self.at_s or begin_s < self.at_s[0] or end_s > self.at_s[-1] or begin_s >= end_s:
            raise ValueError("nobody watched whether cores were idle then")
        return (_at(self.at_s, self.idle_s, end_s) - _at(self.at_s, self.idle_s, begin_s)) / (end_s - begin_s)

    def look(self, now_s: float) -> None:
        """Read the kernel's account. A core whose process waits for a disk is free for another."""
        times = psutil.cpu_times()
        self.at_s.append(now_s)
        self.idle_s.append(times.idle + getattr(times, "iowait", 0.0))


@asynccontextmanager
async def watching() -> AsyncIterator[Idle]:
    """Look all the time, and once more on leaving."""
    clock, idle = Clock(), Idle()

    async def watch() -> None:
        while True:
            idle.look(clock.now_s())
            await asyncio.sleep(_EVERY_S)

    watcher = asyncio.create_task(watch())
    try:
        yield idle
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])
        idle.look(clock.now_s())


def _at(moments: Sequence[float], values: Sequence[float], moment: float) -> float:
    """The value at a moment, on the line between those before and behind."""
    behind = min(bisect_right(moments, moment), len(moments) - 1)
    before = behind - 1
    share = (moment - moments[before]) / (moments[behind] - moments[before])
    return values[before] + share * (values[behind] - values[before])
