"""Says of each figure "better", "equivalent" or "inconclusive": Holm over those that were named beforehand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from compare.statistics.sign_flips import ALPHA, Estimate, pairs_needed

Said = Literal["better", "equivalent", "inconclusive", "not named"]


@dataclass(frozen=True, slots=True)
class Claim:
    """What may be said of one figure. `p_holm` is its p-value among those that were named beforehand, else
    None."""

    said: Said
    p_holm: float | None
    why: str


def judge(estimates: Mapping[str, Estimate], primary: Collection[str], margin: float) -> dict[str, Claim]:
    """A claim for each figure. Differences within `margin` (0.1: 10 %) do not matter, either way.

    Better: equality is refused at `ALPHA` over all primary figures, and the median lies beyond the margin.
    Equivalent: the whole interval lies within the margin. Of a figure that nobody named, nothing is claimed. A
    primary figure without an estimate still counts among those that were named.
    """
    adjusted = holm({name: estimates[name].p if name in estimates else 1.0 for name in primary})
    return {name: _claim(one, adjusted.get(name), len(primary), margin) for name, one in estimates.items()}


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment (1979): the chance of one false claim or more, over all of them."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = highest
    return adjusted


def _claim(one: Estimate, p_holm: float | None, named: int, margin: float) -> Claim:
    if p_holm is None:
        return Claim("not named", None, "it was not among the figures named beforehand")
    beyond = max(one.ratio, 1 / one.ratio) > 1 + margin
    if p_holm <= ALPHA and beyond:
        return Claim("better", p_holm, "equality is refused, and the median lies beyond the margin")
    if one.low >= 1 / (1 + margin) and one.high <= 1 + margin:
        return Claim("equivalent", p_holm, "the whole interval lies within the margin")
    needed = pairs_needed(named)
    if one.pairs < needed:
        return Claim("inconclusive", p_holm, f"{one.pairs} of {needed} rounds that so many figures need")
    if p_holm <= ALPHA:
        return Claim("inconclusive", p_holm, "there is a difference; whether it exceeds the margin is open")
    return Claim("inconclusive", p_holm, "both equality and a difference fit what was measured")
