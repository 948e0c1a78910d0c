"""One clock for the whole run: wall-clock times derived from the monotonic clock, and how far the two drifted."""

from __future__ import annotations

import time


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

    def drift_s(self) -> float:
        """Wall clock minus ours, now; positive when the wall clock ran ahead."""
        return time.time() - self.now_s()
