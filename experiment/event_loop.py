"""An event loop whose timers are exact to some 0.1 ms: on Linux asyncio's own wakes up at the next whole one."""

from __future__ import annotations

import asyncio
import select
import selectors
import sys

_DESCRIPTORS_MAX = 1_024
"""select(2) cannot wait for one with a higher number."""

if sys.platform == "linux":

    class PreciseSelector(selectors.EpollSelector):
        """Waits by select(2), whose time-out has microseconds, until epoll has something to tell; then asks it.

        epoll_wait(2) counts in milliseconds, and Python rounds up.
        """

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0 and self.fileno() < _DESCRIPTORS_MAX:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)


def precise_loop() -> asyncio.AbstractEventLoop:
    """A new event loop that waits in this way; elsewhere the usual one, whose kqueue counts in nanoseconds."""
    return asyncio.SelectorEventLoop(PreciseSelector()) if sys.platform == "linux" else asyncio.new_event_loop()
