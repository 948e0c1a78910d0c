"""The exact sign-flip test of paired rounds (Fisher, Pitman), and the interval that it gives when it is inverted.

Each pair gives the logarithm of a ratio. Where two systems are equal and the order within each pair is drawn,
every logarithm could as well have had the other sign: of the 2^n sums that come of flipping signs, the one that
was seen is as likely as any other. A shift is kept in the interval as long as the test does not refuse it; the
limits are means of subsets of the logarithms (Hartigan, "Using subsample values as typical values", JASA 64,
1969), so nothing is searched.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, inf, log, log2
from statistics import median
from typing import Final

ALPHA: Final = 0.05
"""How often two equal systems may be told apart, and what is missing to the interval's confidence."""
PAIRS_MIN: Final = 6
"""With fewer no outcome is rarer than `ALPHA`: five that agree come of two equal systems in 2 of 32 runs."""
_EXACT_PAIRS_MAX: Final = 15
_SAMPLED: Final = 2**_EXACT_PAIRS_MAX - 1
_ROUNDING: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Estimate:
    """What pairs say about the ratio of the second to the first, as factors: 1.2 is 20 % more.

    `ratio` is the median of the pairs' ratios, `low` and `high` the interval's limits (0 and infinity: too few
    pairs), `confidence` how often such an interval holds the truth, at least. `p` is the two-sided p-value of
    equality.
    """

    pairs: int
    ratio: float
    low: float
    high: float
    confidence: float
    p: float

    def turned(self) -> Estimate:
        """The same of the first to the second."""
        return Estimate(self.pairs, 1 / self.ratio, 1 / self.high, _inverse(self.low), self.confidence, self.p)


def compare_pairs(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """What pairs of positive figures say about the ratio of the second to the first. Raises `ValueError` on
    none."""
    if not pairs or any(first <= 0 or second <= 0 for first, second in pairs):
        raise ValueError("a ratio wants at least one pair, and positive figures")
    ratios = [log(second / first) for first, second in pairs]
    means = subset_means(ratios)
    low, high, confidence = _limits(means, ALPHA)
    return Estimate(
        pairs=len(pairs),
        ratio=exp(median(ratios)),
        low=exp(low),
        high=inf if high == inf else exp(high),
        confidence=confidence,
        p=_p_value(means, 0.0),
    )


def interval_of(values: Sequence[float], alpha: float = ALPHA) -> tuple[float, float]:
    """The shifts of `values` (differences, logarithms of ratios) that the test does not refuse at `alpha`; without
    limits where they are too few."""
    low, high, _ = _limits(subset_means(values), alpha)
    return low, high


def pairs_needed(figures: int) -> int:
    """How many pairs it takes until one of so many figures can be told from equality at all (Holm's first
    step)."""
    return max(PAIRS_MIN, ceil(log2(2 * figures / ALPHA)))


def subset_means(values: Sequence[float]) -> list[float]:
    """The means of all subsets but the empty one, sorted; beyond 15 values of as many that are drawn, always the
    same.

    Drawn subsets leave the test valid: what was seen counts as one of the flips (Phipson and Smyth, 2010).
    """
    if len(values) <= _EXACT_PAIRS_MAX:
        sums = [(0.0, 0)]
        for value in values:
            sums += [(total + value, count + 1) for total, count in sums]
        return sorted(total / count for total, count in sums[1:])
    draw = random.Random(len(values))  # noqa: S311 - no secret, and the same in each run
    means: list[float] = []
    while len(means) < _SAMPLED:
        bits = draw.getrandbits(len(values))
        if bits:
            chosen = [value for place, value in enumerate(values) if bits >> place & 1]
            means.append(sum(chosen) / len(chosen))
    return sorted(means)


def _limits(means: Sequence[float], alpha: float) -> tuple[float, float, float]:
    """Both limits, and how much confidence there is between them."""
    flips = len(means) + 1
    refused = int(alpha / 2 * flips)
    """So many of the lowest and of the highest are outside; the k-th lowest mean is the limit."""
    low, high = (means[refused - 1], means[-refused]) if refused else (-inf, inf)
    return low, high, 1 - 2 * refused / flips


def _p_value(means: Sequence[float], shift: float) -> float:
    """Two-sided: twice the smaller share of flips whose sum is as far out as the one seen, if `shift` is the
    truth."""
    below = bisect_right(means, shift + _ROUNDING)
    above = len(means) - bisect_left(means, shift - _ROUNDING)
    return min(1.0, 2 * (1 + min(below, above)) / (len(means) + 1))


def _inverse(value: float) -> float:
    return 1 / value if value else inf
