"""Says of each control whether what was planted was found, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import exp, isinf, log
from statistics import median

from compare.measured import AGAIN, ControlPhases, MeasuredSide
from compare.statistics import Estimate, compare_pairs, interval_of, judge
from deploy.topology import BrokerName
from experiment.stamping import WIRE
from experiment.workload import FigureName, Workload

PAIRS_MIN = 8
"""With fewer an interval of 99 % has no limits."""
FOUND_ON_THE_WIRE = {**dict.fromkeys(WIRE, 1), "delivered_out_of_order": 1, "committed_out_of_order": 1}
"""What one fault of each kind must be counted as: what is reordered is so when delivered and when committed."""
_ALPHA = 0.01
"""A control that fails though all is well costs a run: its interval is one of 99 %, not of 95 %."""
_SHARE_OFF_MAX = 0.1
"""A recovered delay may be so far off what was planted, as a share of it: it delays what waits behind it, too."""
_SPEED_OFF_MAX = 0.05
"""A recovered speed may be so far off: a consumer that stands still leaves the CPUs to the others meanwhile."""
_LATENCIES: tuple[FigureName, ...] = ("p50_ms", "p99_ms")
_A_A = "nothing; the later load to the earlier"
_PERCENT = {"p50_ms": 50, "p99_ms": 99}


@dataclass(frozen=True, slots=True)
class Control:
    """What was planted on a broker (None: on both, in turns), what was found, and whether that is the same."""

    name: str
    broker: BrokerName | None
    planted: str
    found: str
    passed: bool


def judge_controls(sides: Mapping[BrokerName, MeasuredSide], workload: Workload) -> list[Control]:
    """Every control that the workload asks for: one whose phases did not run has failed."""
    found: list[Control] = []
    if workload.controls.timing:
        found += [_against_itself(broker, measured, workload) for broker, measured in sides.items()]
        found += [_delay(sides.values(), workload), _slowdown(sides.values(), workload)]
    if workload.controls.wire:
        found += [_wire(broker, measured.controls) for broker, measured in sides.items()]
    return found


def resolution(sides: Iterable[MeasuredSide], figure: FigureName) -> float | None:
    """By what factor a broker seems to differ from itself at most, at 95 %; None where that was not tried."""
    factors = []
    for measured in sides:
        pairs = _repeats(measured, figure)
        if pairs:
            estimate = compare_pairs(pairs)
            factors.append(max(estimate.high, 1 / estimate.low if estimate.low else estimate.high))
    return max(factors) if factors and not isinf(max(factors)) else None


def _against_itself(broker: BrokerName, measured: MeasuredSide, workload: Workload) -> Control:
    """A/A: whatever a run claims of a broker against itself is false."""
    figures: list[FigureName] = [name for name in _LATENCIES if name in workload.primary] or ["p50_ms"]
    estimates: dict[str, Estimate] = {
        name: compare_pairs(pairs) for name in figures if (pairs := _repeats(measured, name))
    }
    claims = judge(estimates, figures, workload.margin)
    said = [
        f"{name.removesuffix('_ms')} {claim.said} ({_percents(log(one.low), log(one.high))})"
        for name, claim in claims.items()
        if (one := estimates[name]).low and not isinf(one.high)
    ]
    passed = len(said) == len(figures) and all(claim.said != "better" for claim in claims.values())
    return Control("A/A", broker, _A_A, "; ".join(said) or "too few rounds", passed)


def _repeats(measured: MeasuredSide, figure: FigureName) -> list[tuple[float, float]]:
    """The steady load and its repetition, as pairs; in every even round the repetition came first."""
    pairs = []
    for number, again in measured.controls.repeated.items():
        values = [
            result.latencies.percentile_ms(_PERCENT[figure]) for result in (measured.steady[number - 1], again)
        ]
        first, second = values if number % 2 else reversed(values)
        if first and second:
            pairs.append((first, second))
    return pairs


def _delay(sides: Iterable[MeasuredSide], workload: Workload) -> Control:
    differences, took_s = [], []
    for measured in sides:
        took_s += measured.controls.delays_s
        for number, delayed in measured.controls.delayed.items():
            with_it = delayed.latencies.percentile_ms(50)
            without = measured.steady[number - 1].latencies.percentile_ms(50)
            if with_it is not None and without is not None:
                differences.append(with_it - without)
    asked = f"{workload.controls.delay_ms:g} ms"
    if len(differences) < PAIRS_MIN or not took_s:
        found = f"{len(differences)} of {PAIRS_MIN} rounds" if took_s else "no transaction that was delayed"
        return Control("delay", None, asked, found, passed=False)
    low, high = interval_of(differences, _ALPHA)
    took_ms = median(took_s) * 1_000
    off = _SHARE_OFF_MAX * took_ms
    return Control(
        "delay",
        None,
        f"{asked} before each request's transaction (took {took_ms:.1f} ms)",
        f"p50 {median(differences):+.1f} ms ({low:+.1f} to {high:+.1f})",
        passed=low > 0 and low - off <= took_ms <= high + off,
    )


def _slowdown(sides: Iterable[MeasuredSide], workload: Workload) -> Control:
    left = 1 - workload.controls.slowdown
    ratios = [log(slowed / plain) for measured in sides for plain, slowed in _drains(measured)]
    asked = f"{left:.0%} of the consumer's speed"
    if len(ratios) < PAIRS_MIN:
        return Control("slowdown", None, asked, f"{len(ratios)} of {PAIRS_MIN} rounds", passed=False)
    low, high = interval_of(ratios, _ALPHA)
    return Control(
        "slowdown",
        None,
        asked,
        f"effects/s {exp(median(ratios)):.0%} ({exp(low):.0%} to {exp(high):.0%})",
        passed=exp(high) < 1 and exp(low) * (1 - _SPEED_OFF_MAX) <= left <= exp(high) * (1 + _SPEED_OFF_MAX),
    )


def _drains(measured: MeasuredSide) -> Iterator[tuple[float, float]]:
    plain = {
        result.phase.removesuffix(AGAIN).rpartition("-")[2]: result.drain.per_s for result in measured.backlogs
    }
    for number, slowed in measured.controls.slowed.items():
        before = plain.get(str(number))
        if before and slowed.drain.per_s:
            yield before, slowed.drain.per_s


def _wire(broker: BrokerName, controls: ControlPhases) -> Control:
    found = controls.wire
    said = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted((found or {}).items()))
    planted = ", ".join(name.replace("_", " ") for name in sorted(WIRE))
    return Control("wire", broker, f"one of each: {planted}", said or "nothing", passed=found == FOUND_ON_THE_WIRE)


def _percents(low: float, high: float) -> str:
    return f"{exp(low) - 1:+.0%} to {exp(high) - 1:+.0%}"
