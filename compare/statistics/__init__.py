"""Statistics of paired rounds: the exact sign-flip test, its interval, what may be said of several figures, and
whether one drifts."""

__all__ = [
    "PAIRS_MIN",
    "Claim",
    "Estimate",
    "compare_pairs",
    "drifting",
    "interval_of",
    "judge",
    "pairs_needed",
    "subset_means",
]

from compare.statistics.drift import drifting
from compare.statistics.sign_flips import (
    PAIRS_MIN,
    Estimate,
    compare_pairs,
    interval_of,
    pairs_needed,
    subset_means,
)
from compare.statistics.verdicts import Claim, judge
