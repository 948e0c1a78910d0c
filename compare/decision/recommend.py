"""Weighs a run by one's own preferences: which broker, how surely, why, and at which weight the answer turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, log1p
from statistics import median

from compare.decision import constraints, money
from compare.decision.preferences import Preferences
from compare.document import Recommendation, Summary
from compare.statistics import pairs_needed, subset_means
from deploy.topology import BrokerName
from experiment.facts import TITLES

NOT_KNOWN = (
    "how it is to run either broker: upgrades, people who know it, what a cloud offers",
    "other machines, clusters, larger messages, other clients: this is one machine and one load",
)


@dataclass(frozen=True, slots=True)
class _Weighed:
    """How far the second broker is ahead in one figure, by round, as logarithms: more than 0 is better."""

    leads: Sequence[float]
    share: float


def recommend(summary: Summary, preferences: Preferences) -> Recommendation:
    """What these preferences make of the run. Without a broker whose `p_best` is high enough, there is none."""
    one, other = summary.brokers
    prices = {broker: money.by_round(broker, row, preferences.prices) for broker, row in summary.brokers.items()}
    weighed, unknown = _weigh(summary, preferences, prices)
    out = constraints.lacking(summary, preferences.must)
    doubts = constraints.open_questions(summary, preferences.must)
    score, p_other = _score(weighed)
    p_best = _p_best(one, other, p_other, out)
    best = max(p_best, key=lambda broker: p_best[broker])
    reason = _reason_for_none(summary, preferences, p_best, doubts, decided_by_weights=not out, weighed=weighed)
    chosen = None if reason else best
    lead = f"P(best) {p_best[best]:.0%} for {TITLES[best]}"
    verdict = f"No recommendation: {reason}." if reason else f"{TITLES[best]} ({lead})."
    why = [sentence for sentences in out.values() for sentence in sentences]
    why += [_why(name, row, one, other) for name, row in weighed.items()]
    if weighed and abs(score) < log1p(float(summary.workload.get("margin", 0.1))):
        why.append("all in all the two are closer than the margin: the choice matters little")
    return Recommendation(
        broker=chosen,
        p_best=p_best,
        verdict=verdict,
        why=why,
        flips={name: _flip(name, weighed) for name in weighed},
        unknown=[*doubts.values(), *unknown, *NOT_KNOWN],
        money_per_million={broker: _middle(values) for broker, values in prices.items()},
        currency=preferences.prices.currency,
    )


def _weigh(
    summary: Summary, preferences: Preferences, prices: Mapping[BrokerName, Sequence[float | None]]
) -> tuple[dict[str, _Weighed], list[str]]:
    """The figures that can be weighed, and sentences about those that cannot."""
    one, other = summary.brokers
    weighed: dict[str, _Weighed] = {}
    unknown = []
    total = sum(preferences.weights.values())
    for name, weight in preferences.weights.items():
        if not weight:
            continue
        series = [
            prices[broker] if name == "money" else summary.brokers[broker].by_round.get(name, [])
            for broker in (one, other)
        ]
        pairs = [(left, right) for left, right in zip(*series, strict=False) if left and right]
        row = summary.comparison.get(name)
        if row is not None and row.verdict == "none":
            unknown.append(f"{name}: {row.why}")
        elif len(pairs) < pairs_needed(1) or len(pairs) != max(len(values) for values in series):
            unknown.append(f"{name}: {len(pairs)} of {pairs_needed(1)} rounds have it")
        else:
            sign = 1 if row is not None and row.better == "higher" else -1
            weighed[name] = _Weighed([sign * log(right / left) for left, right in pairs], weight / total)
    return weighed, unknown


def _score(weighed: Mapping[str, _Weighed]) -> tuple[float, float]:
    """The weighted lead of the second broker, and how surely it is one: over the means of all subsets of the
    rounds.

    These are what the interval's limits are taken from, and each is as likely as any other to be passed by the
    truth.
    """
    if not weighed:
        return 0.0, 0.5
    rounds = min(len(row.leads) for row in weighed.values())
    totals = [sum(row.share * row.leads[place] for row in weighed.values()) for place in range(rounds)]
    means = subset_means(totals)
    above = sum(mean > 0 for mean in means) + sum(mean == 0 for mean in means) / 2
    return median(totals), (above + 0.5) / (len(means) + 1)


def _p_best(
    one: BrokerName, other: BrokerName, p_other: float, out: Mapping[BrokerName, object]
) -> dict[BrokerName, float]:
    if one in out and other in out:
        return {one: 0.0, other: 0.0}
    if one in out or other in out:
        return {one: float(one not in out), other: float(other not in out)}
    return {one: round(1 - p_other, 4), other: round(p_other, 4)}


def _reason_for_none(
    summary: Summary,
    preferences: Preferences,
    p_best: Mapping[BrokerName, float],
    doubts: Mapping[BrokerName, str],
    *,
    decided_by_weights: bool,
    weighed: Mapping[str, _Weighed],
) -> str | None:
    best = max(p_best, key=lambda broker: p_best[broker])
    if void := _void(summary):
        return void
    if not p_best[best]:
        return "neither broker has all that it must have"
    if decided_by_weights and not weighed:
        return "none of the weighed figures is known"
    if p_best[best] < preferences.p_best_min:
        return f"P(best) is {p_best[best]:.0%} for {TITLES[best]}, less than {preferences.p_best_min:.0%}"
    if best in doubts:
        return f"it is not known whether {TITLES[best]} has what it must have"
    return None


def _void(summary: Summary) -> str | None:
    """Why no figure of the run counts."""
    if summary.cut_short:
        return "the run was cut short"
    if not summary.sound:
        return "events were lost, doubled, reordered or left behind"
    failed = [control.name for control in summary.controls if not control.passed]
    return (
        f"a control failed ({', '.join(failed)}), so nothing that the run says can be believed" if failed else None
    )


def _why(name: str, row: _Weighed, one: BrokerName, other: BrokerName) -> str:
    lead = median(row.leads)
    if not lead:
        return f"{name} (weight {row.share:.0%}): alike"
    ahead = TITLES[other if lead > 0 else one]
    return f"{name} (weight {row.share:.0%}): {ahead} by a factor of {exp(abs(lead)):.2f}"


def _flip(name: str, weighed: Mapping[str, _Weighed]) -> float | None:
    """The share of all weight that this figure must have for the weighted medians to be even; None: no share
    does."""
    own = median(weighed[name].leads)
    rest = {other: row for other, row in weighed.items() if other != name}
    of_rest = sum(row.share for row in rest.values())
    if not of_rest:
        return None
    others = sum(row.share * median(row.leads) for row in rest.values()) / of_rest
    return round(others / (others - own), 4) if own * others < 0 else None


def _middle(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return round(median(present), 4) if present else None
