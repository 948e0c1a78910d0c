"""Decides what may be concluded from the rounds of a run: figure by figure a claim, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isinf
from typing import Any, Literal

from compare.controls import Control, resolution
from compare.limiter import BROKER, Limiter, limiters, said
from compare.measured import (
    FOREIGN_SHARE_MAX,
    BacklogResult,
    MeasuredSide,
    SteadyResult,
    foreign_share,
)
from compare.run import RunResult
from compare.statistics import Claim, Estimate, compare_pairs, drifting, judge, pairs_needed
from deploy.native import BrokerName
from experiment.figures import Latencies
from experiment.profiles import PROFILES
from experiment.usage import GENERATOR
from experiment.workload import FigureName

LATE_SHARE_MAX = 0.01
LAG_SHARE_MAX = 0.1
"""How late requests are sent, at the 99th percentile of a side, as a part of its median latency."""
LAG_FLOOR_MS = 3.0
"""So late are some on two busy cores, however exact the timers: a tenth of what is fast there is less."""
SAMPLES_MIN = 1_000
"""Latencies in a round, without which its 99th percentile hangs on a handful of them."""
_FAILED_SHARE_MAX = 0.001
_LATENCIES = frozenset({"p50_ms", "p99_ms"})


@dataclass(frozen=True, slots=True)
class FigureKind:
    """What is compared: its name for a person, its unit, and whether more of it is better."""

    title: str
    unit: str
    better: Literal["higher", "lower"]


FIGURES: dict[FigureName, FigureKind] = {
    "effects_per_s": FigureKind("effects/s, draining", "1/s", "higher"),
    "relay_events_per_s": FigureKind("events/s, outbox to broker", "1/s", "higher"),
    "p50_ms": FigureKind("p50 ms, request to effect", "ms", "lower"),
    "p99_ms": FigureKind("p99 ms, request to effect", "ms", "lower"),
}


def comparison(
    outcome: RunResult, brokers: Mapping[BrokerName, Any], controls: Sequence[Control]
) -> dict[str, dict[str, Any]]:
    """For each figure what its pairs of rounds say, as plain data; `ratio_of` names whose ratio to whose it is."""
    (one, first), (other, second) = brokers.items()
    workload = outcome.workload
    pairs = {name: _pairs(first["by_round"][name], second["by_round"][name]) for name in FIGURES}
    reasons = {
        name: _reason_of_controls(controls)
        or _reason_against(name, outcome)
        or _reason_of_pairs(name, outcome, pairs[name])
        or _reason_of_drift(pairs[name], workload.margin)
        for name in FIGURES
    }
    estimates = {name: compare_pairs(each) for name, each in pairs.items() if each}
    claims = judge(
        {name: each for name, each in estimates.items() if not reasons[name]}, workload.primary, workload.margin
    )
    machine_cores = float(outcome.hardware["cores"] or 1)
    limited_by = {broker: limiters(measured, machine_cores) for broker, measured in outcome.sides.items()}
    found: dict[str, dict[str, Any]] = {}
    for name, kind in FIGURES.items():
        estimate, claim = estimates.get(name), claims.get(name)
        finest = resolution(outcome.sides.values(), name) if name in _LATENCIES else None
        if claim and estimate and finest:
            claim = _within_resolution(claim, estimate, finest)
        limited = {broker: each[name] for broker, each in limited_by.items()}
        winner = _winner(kind, estimate, one, other) if claim and claim.said == "better" else None
        held_up = [limited[one if winner == other else other]] if winner else list(limited.values())
        by_broker = any(_is_broker(each) for each in held_up)
        found[name] = {
            "title": kind.title,
            "unit": kind.unit,
            "better": kind.better,
            "ratio_of": f"{other}/{one}",
            **_numbers(estimate),
            "resolution": _rounded(finest),
            "primary": name in workload.primary,
            "p_holm": claim.p_holm if claim else None,
            "limiter": said(limited),
            "limiters": {broker: str(each) for broker, each in limited.items() if each},
            "verdict": claim.said if claim else "none",
            "winner": winner,
            "why": claim.why if claim else reasons[name],
            "sentence": _sentence(kind, estimate, claim, reasons[name], (other, winner, by_broker))
            + against_itself(estimate, claim, finest, kind),
        }
    return found


def needed(outcome: RunResult) -> int:
    """How many rounds it takes before anything can be decided about the run's primary figures."""
    return pairs_needed(len(outcome.workload.primary))


def calm(outcome: RunResult) -> bool:
    """Whether other programs left every phase that counts alone."""
    return foreign_share_max(outcome) <= FOREIGN_SHARE_MAX


def foreign_share_max(outcome: RunResult) -> float:
    """The largest part of the machine's CPU time that other programs used in a phase that counts."""
    cores = float(outcome.hardware["cores"] or 1)
    return max((foreign_share(result, cores) for result in _results(outcome)), default=0.0)


def _results(outcome: RunResult) -> list[SteadyResult | BacklogResult]:
    results: list[SteadyResult | BacklogResult] = []
    for measured in outcome.sides.values():
        results += [*measured.steady, *measured.backlogs]
    return results


def share(outcome: RunResult, group: str = GENERATOR) -> float:
    """The part of the machine's CPU time that a group used while figures were taken."""
    results = _results(outcome)
    available_s = sum(result.seconds for result in results) * float(outcome.hardware["cores"] or 1)
    return sum(result.cpu_s.get(group, 0.0) for result in results) / available_s if available_s else 0.0


def client_limited(result: SteadyResult) -> bool:
    """Whether more than a hundredth of a round's requests were sent late."""
    return result.load.late > LATE_SHARE_MAX * result.load.operations


def lag_ms(measured: MeasuredSide) -> tuple[float, float]:
    """How late a side's requests were sent, at their 99th percentile, and how late they may be."""
    lags, latencies = Latencies(), Latencies()
    for result in measured.steady:
        lags.add(result.load.send_lag)
        latencies.add(result.latencies)
    return lags.percentile_ms(99) or 0.0, max(LAG_FLOOR_MS, LAG_SHARE_MAX * (latencies.percentile_ms(50) or 0.0))


def broker_cores(measured: MeasuredSide) -> dict[str, float | None]:
    """How many cores the broker used while each figure was taken, on average of its rounds; None: not measured."""
    broker = measured.side.broker

    def used(spent: Iterable[tuple[Mapping[str, float], float]]) -> float | None:
        rows = list(spent) if measured.broker_measured else []
        seconds = sum(length_s for _, length_s in rows)
        return sum(cpu_s.get(broker, 0.0) for cpu_s, _ in rows) / seconds if seconds else None

    steady = used((result.cpu_s, result.seconds) for result in measured.steady)
    return {
        "effects_per_s": used((result.cpu_s, result.seconds) for result in measured.backlogs),
        "relay_events_per_s": used((result.relay_cpu_s, result.relay_seconds) for result in measured.backlogs),
        "p50_ms": steady,
        "p99_ms": steady,
    }


def _reason_of_controls(controls: Sequence[Control]) -> str | None:
    failed = [control.name + (f" on {control.broker}" if control.broker else "") for control in controls
              if not control.passed]  # fmt: skip
    return f"control failed: {', '.join(failed)}" if failed else None


def _within_resolution(claim: Claim, estimate: Estimate, finest: float) -> Claim:
    """A difference no larger than that of a broker from itself is none."""
    if claim.said != "better" or max(estimate.ratio, 1 / estimate.ratio) > finest:
        return claim
    return replace(claim, said="inconclusive", why="a broker differs as much from itself in this run")


def _pairs(first: Iterable[float | None], second: Iterable[float | None]) -> list[tuple[float, float]]:
    """The rounds as pairs; none at all where a round has no figure: who leaves out what went wrong chooses."""
    pairs = list(zip(first, second, strict=False))
    whole = [(left, right) for left, right in pairs if left and right and left > 0 and right > 0]
    return whole if len(whole) == len(pairs) else []


def _reason_against(name: FigureName, outcome: RunResult) -> str | None:
    """Why nothing is said about a figure, whatever its values are."""
    if outcome.cut_short:
        return "cut short"
    if (undecided := PROFILES[outcome.workload.profile].undecided) is not None:
        return undecided
    if outcome.workload.rounds < needed(outcome):
        return f"{outcome.workload.rounds} of {needed(outcome)} rounds"
    if not calm(outcome):
        return "busy machine"
    return _reason_against_latency(name, outcome) if name in _LATENCIES else None


def _reason_against_latency(name: FigureName, outcome: RunResult) -> str | None:
    results = [result for measured in outcome.sides.values() for result in measured.steady]
    fewest = min((result.latencies.count for result in results), default=0)
    reasons = {
        "late sends": any(client_limited(result) for result in results)
        or any(lag > allowed for lag, allowed in map(lag_ms, outcome.sides.values())),
        "saturated": any(result.load.overruns for result in results),
        "failed requests": any(
            result.latencies.endless > _FAILED_SHARE_MAX * result.load.operations for result in results
        ),
        f"{fewest:,} of {SAMPLES_MIN:,} samples": name == "p99_ms" and fewest < SAMPLES_MIN,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _reason_of_pairs(name: FigureName, outcome: RunResult, pairs: list[tuple[float, float]]) -> str | None:
    if not pairs:
        return "no figure"
    if name in outcome.workload.primary and len(pairs) < needed(outcome):
        return f"{len(pairs)} of {needed(outcome)} rounds"
    return None


def _reason_of_drift(pairs: list[tuple[float, float]], margin: float) -> str | None:
    """What both sides have in common of a drift is not in the ratios; what they have not would be decided by how
    long the run was."""
    return "not stationary" if drifting([second / first for first, second in pairs], margin) else None


def _is_broker(loser: Limiter | None) -> bool:
    """Whether it was the slower one's broker that held it up: then the faster one is at least so fast."""
    return loser is not None and loser.name == BROKER


def _winner(kind: FigureKind, estimate: Estimate | None, one: BrokerName, other: BrokerName) -> BrokerName | None:
    if estimate is None:
        return None
    return other if (estimate.ratio > 1) == (kind.better == "higher") else one


def _numbers(estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        return {"pairs": 0, "ratio": None, "interval": None, "confidence": None, "p": None}
    return {
        "pairs": estimate.pairs,
        "ratio": round(estimate.ratio, 4),
        "interval": None if isinf(estimate.high) else [round(estimate.low, 4), round(estimate.high, 4)],
        "confidence": None if isinf(estimate.high) else round(estimate.confidence, 4),
        "p": round(estimate.p, 5),
    }


def _sentence(
    kind: FigureKind,
    estimate: Estimate | None,
    claim: Claim | None,
    reason: str | None,
    who: tuple[BrokerName, BrokerName | None, bool],
) -> str:
    other, winner, by_broker = who
    if claim is None or estimate is None:
        return f"no verdict: {reason}"
    if claim.said == "not named":
        return "no verdict: not named beforehand"
    through = "" if by_broker or claim.said == "inconclusive" else ", through these Python clients"
    if claim.said != "better":
        return f"{claim.said}: {other} {_percent(estimate.low)} to {_percent(estimate.high)}{through}"
    seen = estimate if winner == other else estimate.turned()
    low, high = sorted([abs(seen.low - 1), abs(seen.high - 1)])
    return f"{winner} {kind.better} by {abs(seen.ratio - 1):.0%} ({low:.0%} to {high:.0%}){through}"


def against_itself(estimate: Estimate | None, claim: Claim | None, finest: float | None, kind: FigureKind) -> str:
    """What a sentence adds where the interval of a difference reaches down to that of a broker from itself."""
    if estimate is None or claim is None or finest is None or claim.said not in {"better", "inconclusive"}:
        return ""
    if estimate.low <= 1 <= estimate.high or min(max(e, 1 / e) for e in (estimate.low, estimate.high)) > finest:
        return ""
    lower = claim.said == "better" and kind.better == "lower"
    return f"; a broker differs from itself by up to {1 - 1 / finest if lower else finest - 1:.0%}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _percent(ratio: float) -> str:
    return f"{ratio - 1:+.0%}"
