"""Decides what may be concluded from a run, and says what a reader must know before believing its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from compare.phases import BacklogResult, MeasuredSide, SteadyResult
from compare.run import RunResult
from deploy.native import BrokerName
from experiment import facts
from experiment.usage import GENERATOR, OTHERS

_COMPARED = {"effects_per_s": "higher", "relay_events_per_s": "higher", "p50_ms": "lower", "p99_ms": "lower"}
_LATENCIES = frozenset({"p50_ms", "p99_ms"})
_LATE_SHARE_MAX = 0.01
_OTHERS_SHARE_MAX = 0.1
_DRIFT_MAX_S = 0.001
_SAMPLES_MIN = 1_000
_ROUNDS_MIN = 5


def differences(outcome: RunResult, brokers: Mapping[BrokerName, Any]) -> dict[str, str]:
    """For each figure the better broker and by how much, or why that cannot be said."""
    general = _no_verdict(outcome)
    steady_results = [result for measured in outcome.sides.values() for result in measured.steady]
    client_limited = any(_client_limited(result) for result in steady_results)
    saturated = any(result.load.overruns for result in steady_results)
    found: dict[str, str] = {}
    for name, better in _COMPARED.items():
        if general:
            found[name] = general
        elif name in _LATENCIES and client_limited:
            found[name] = "no verdict: late sends"
        elif name in _LATENCIES and saturated:
            found[name] = "no verdict: saturated"
        else:
            found[name] = _difference(name, better, brokers)
    return found


def _no_verdict(outcome: RunResult) -> str | None:
    if outcome.workload.rounds < 2:
        return "no verdict: one round"
    if not _calm(outcome):
        return "no verdict: busy machine"
    return None


def _difference(name: str, better: str, brokers: Mapping[BrokerName, Any]) -> str:
    (one, first), (other, second) = brokers.items()
    if first[name] is None or second[name] is None:
        return "no verdict: no figure"
    low, high = first["range"][name], second["range"][name]
    if low[0] <= high[1] and high[0] <= low[1]:
        return "no verdict: ranges overlap"
    larger, smaller = max(first[name], second[name]), min(first[name], second[name])
    first_wins = (first[name] > second[name]) == (better == "higher")
    return f"{one if first_wins else other} {larger / max(smaller, 0.001):.1f}x {better}"


def notes(outcome: RunResult) -> list[str]:
    """What a reader must know, in sentences, the gravest first."""
    found: list[str] = []
    if not _calm(outcome):
        found.append(
            "the machine was not calm: programs that do not belong to the run used "
            f"{_share(outcome, OTHERS):.0%} of its CPU time while figures were taken."
        )
    for broker, measured in outcome.sides.items():
        found += [f"{broker}: {note}" for note in _side_notes(measured)]
    found.append(f"the load generator used {_share(outcome, GENERATOR):.0%} of the CPU time meanwhile.")
    found.append(f"profile {facts.PROFILE}")
    if outcome.workload.rounds < _ROUNDS_MIN:
        found.append(f"{outcome.workload.rounds} round(s) give a first impression; ROUNDS=5 or more a comparison.")
    return found


def _side_notes(measured: MeasuredSide) -> Iterator[str]:
    if not measured.verdict.sound:
        yield "events were lost, doubled or left behind: no figure is given."
    for result in measured.steady:
        yield from _steady_notes(result)
    for backlog in measured.backlogs:
        if backlog.waiting != backlog.events:
            yield f"in {backlog.phase} {backlog.waiting} of {backlog.events} events waited when the drain began."
    samples = sum(result.latencies.count for result in measured.steady)
    if samples < _SAMPLES_MIN:
        yield f"p99 rests on {samples} samples only."


def _steady_notes(result: SteadyResult) -> Iterator[str]:
    load = result.load
    if _client_limited(result):
        yield (
            f"in {result.phase} the load generator or the machine was the limit, not the broker: {load.late} of "
            f"{load.operations} requests had their turn over 50 ms late."
        )
    if load.overruns:
        yield (
            f"in {result.phase} the services did not keep up: {load.overruns} of {load.operations} requests found "
            "as many under way as are allowed; ask for fewer orders_per_s."
        )
    if load.errors:
        yield f"in {result.phase} requests were not acknowledged: {load.errors}."
    if result.latencies.negative:
        yield f"in {result.phase} {result.latencies.negative} latencies are negative (the clock stepped)."
    if abs(result.clock_drift_s) > _DRIFT_MAX_S:
        yield f"in {result.phase} the wall clock moved by {result.clock_drift_s * 1_000:.1f} ms."


def _client_limited(result: SteadyResult) -> bool:
    return result.load.late > _LATE_SHARE_MAX * result.load.operations


def _calm(outcome: RunResult) -> bool:
    return _share(outcome, OTHERS) <= _OTHERS_SHARE_MAX


def _share(outcome: RunResult, group: str) -> float:
    """The part of the machine's CPU time that a group used while figures were taken."""
    results: list[SteadyResult | BacklogResult] = []
    for measured in outcome.sides.values():
        results += [*measured.steady, *measured.backlogs]
    available_s = sum(result.seconds for result in results) * float(outcome.hardware["cores"] or 1)
    return sum(result.cpu_s.get(group, 0.0) for result in results) / available_s if available_s else 0.0
