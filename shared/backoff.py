"""Exponential backoff with equal jitter: how long to wait before a thing that failed is tried again.

    between half and all of: min(initial_s * 2 ** earlier_waits, max_s)

Equal jitter as in "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): never less than half, so that a
server that is down has its rest; the other half drawn, so that what failed together does not come back together.
"""

from __future__ import annotations

from collections.abc import Callable

Draw = Callable[[], float]
"""A number drawn evenly from 0 to 1; `random.random` everywhere but in tests."""

_DOUBLINGS_MAX = 60  # keeps the power a finite number, however often something failed


def longest_wait_s(earlier_waits: int, initial_s: float, max_s: float) -> float:
    """The wait without its jitter: `initial_s` at first, twice as long each time, at most `max_s`."""
    return min(initial_s * 2.0 ** min(earlier_waits, _DOUBLINGS_MAX), max_s)


def jittered_s(longest_s: float, draw: Draw) -> float:
    """Between half of `longest_s` and all of it."""
    return longest_s * (1 + draw()) / 2


def backoff_s(earlier_waits: int, initial_s: float, max_s: float, draw: Draw) -> float:
    """How long to wait when `earlier_waits` tries have already been waited for: see the module's formula."""
    return jittered_s(longest_wait_s(earlier_waits, initial_s, max_s), draw)
