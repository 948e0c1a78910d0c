"""Whether a figure changed in the course of the rounds: the exact test of Mann and Kendall, and the slope of Theil
and Sen.

The test counts how many pairs of rounds are in falling order. Where rounds do not depend on their number, each
order of them is as likely as any other, so that the count's distribution is known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp, log
from statistics import median
from typing import Final

DRIFT_ALPHA: Final = 0.01
"""How often rounds that do not depend on their number may seem to. A false alarm costs a run its verdict: with six
rounds only an order without exception is rare enough."""


@dataclass(frozen=True, slots=True)
class Drift:
    """By which factor a figure changed from the first round to the last, and the two-sided p-value of no trend."""

    factor: float
    p: float


def drift_of(values: Sequence[float]) -> Drift:
    """How positive figures changed in their order. Raises `ValueError` with fewer than two, or any that is not."""
    if len(values) < 2 or any(value <= 0 for value in values):
        raise ValueError("a trend wants at least two positive figures")
    pairs = list(combinations(enumerate(map(log, values)), 2))
    slope = median((later - earlier) / (second - first) for (first, earlier), (second, later) in pairs)
    balance = sum((later > earlier) - (later < earlier) for (_, earlier), (_, later) in pairs)
    return Drift(exp(slope * (len(values) - 1)), _p_value(len(values), abs(balance)))


def drifting(values: Sequence[float], margin: float) -> Drift | None:
    """The trend of figures whose order is hardly chance, by more than `margin`; None: there is no such trend."""
    if len(values) < 2:
        return None
    found = drift_of(values)
    beyond = max(found.factor, 1 / found.factor) > 1 + margin
    return found if beyond and found.p <= DRIFT_ALPHA else None


def _p_value(count: int, balance: int) -> float:
    """How often rising and falling pairs of so many rounds in any order differ by so many or more."""
    chances = [1.0]
    """Of each number of falling pairs among the first rounds: a further one falls below 0 to all of them."""
    for size in range(2, count + 1):
        chances = [
            sum(chances[max(0, falling - size + 1) : falling + 1]) / size
            for falling in range(size * (size - 1) // 2 + 1)
        ]
    whole = count * (count - 1) // 2
    return min(1.0, sum(chance for falling, chance in enumerate(chances) if abs(whole - 2 * falling) >= balance))
