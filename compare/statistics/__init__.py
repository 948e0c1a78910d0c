"""Statistics of paired rounds: the exact sign-flip test, its interval, and what may be said of several figures."""

__all__ = ["Claim", "Estimate", "compare_pairs", "interval_of", "judge", "pairs_needed", "subset_means"]

from compare.statistics.sign_flips import Estimate, compare_pairs, interval_of, pairs_needed, subset_means
from compare.statistics.verdicts import Claim, judge
