"""Decides what may be concluded from a run, and says what a reader must know before believing its figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from compare.phases import BacklogResult, MeasuredSide, SteadyResult
from compare.run import RunResult
from deploy.native import BrokerName
from experiment import facts
from experiment.usage import GENERATOR, OTHERS

_COMPARED = {"effects_per_s": "higher", "relay_events_per_s": "higher", "p50_ms": "lower", "p99_ms": "lower"}
_LATENCIES = frozenset({"p50_ms", "p99_ms"})
_LATE_SHARE_MAX = 0.01
_FAILED_SHARE_MAX = 0.001
_OTHERS_SHARE_MAX = 0.1
_DRIFT_MAX_S = 0.001
_SAMPLES_MIN = 1_000
PAIRS_MIN = 6
"""Rounds, a pair each. Of two equal systems one leads in all of six by chance in 2 of 64 runs; in all of five in 2
of 32, which is too often."""
BUSY_CORES_MIN = 0.5
"""A broker that uses less of a core is far from its limit: what is measured then is what surrounds it."""


def differences(outcome: RunResult, brokers: Mapping[BrokerName, Any]) -> dict[str, str]:
    """For each figure which broker's is better in every round, or why that cannot be said.

    There is no factor in it: the ratio of two columns is one of Tandem on two brokers, and not of the brokers.
    """
    return {
        name: _reason_against(name, outcome) or _difference(name, better, brokers)
        for name, better in _COMPARED.items()
    }


def _reason_against(name: str, outcome: RunResult) -> str | None:
    """Why nothing is said about a figure, whatever its values are."""
    if outcome.workload.rounds < PAIRS_MIN:
        return f"no verdict: {outcome.workload.rounds} of {PAIRS_MIN} rounds"
    if not _calm(outcome):
        return "no verdict: busy machine"
    if name in _LATENCIES:
        steady_results = [result for measured in outcome.sides.values() for result in measured.steady]
        if any(_client_limited(result) for result in steady_results):
            return "no verdict: late sends"
        if any(result.load.overruns for result in steady_results):
            return "no verdict: saturated"
        if any(_failing(result) for result in steady_results):
            return "no verdict: failed requests"
    return None


def _difference(name: str, better: str, brokers: Mapping[BrokerName, Any]) -> str:
    (one, first), (other, second) = brokers.items()
    pairs = list(zip(first["by_round"][name], second["by_round"][name], strict=False))
    if len(pairs) < PAIRS_MIN or any(None in pair for pair in pairs):
        return "no verdict: no figure"
    cores = [row["broker_cores"][name] for row in (first, second)]
    if all(used is None or used < BUSY_CORES_MIN for used in cores):
        return "no verdict: client-limited"
    ahead = sum((left > right) if better == "higher" else (left < right) for left, right in pairs)
    behind = sum((left < right) if better == "higher" else (left > right) for left, right in pairs)
    if len(pairs) not in (ahead, behind):
        return f"no verdict: {max(ahead, behind)} of {len(pairs)} rounds agree"
    return f"{one if ahead else other} {better} in all {len(pairs)} rounds"


def notes(outcome: RunResult) -> list[str]:
    """What a reader must know, in sentences, the gravest first."""
    unequal = "; ".join(f"({number}) {what}" for number, what in enumerate(outcome.settings["unequal"], start=1))
    found = [f"this compares Tandem on two brokers, which are unequal besides: {unequal}."]
    if not _calm(outcome):
        found.append(
            "the machine was not calm: programs that do not belong to the run used "
            f"{_share(outcome, OTHERS):.0%} of its CPU time while figures were taken."
        )
    cores = {broker: broker_cores(measured) for broker, measured in outcome.sides.items()}
    for name, title in _TITLES.items():
        used = {broker: of_figures[name] for broker, of_figures in cores.items()}
        if all(value is not None and value < BUSY_CORES_MIN for value in used.values()):
            said = ", ".join(f"{broker} {value:.2f}" for broker, value in used.items())
            found.append(
                f"{title} client-limited: neither broker was near its limit (cores used: {said}). The figures are "
                "those of the clients, the services and the load."
            )
    for broker, measured in outcome.sides.items():
        found += [f"{broker}: {note}" for note in _side_notes(measured)]
    found.append(f"the load generator used {_share(outcome, GENERATOR):.0%} of the CPU time meanwhile.")
    found.append(f"profile {facts.PROFILE}.")
    rounds = outcome.workload.rounds
    if rounds < PAIRS_MIN:
        found.append(
            f"{rounds} round(s) are a first impression and no comparison: there is no verdict from fewer than "
            f"{PAIRS_MIN}, of which each is a pair; ROUNDS=10 is better."
        )
    return found


_TITLES = {
    "effects_per_s": "the drain was",
    "relay_events_per_s": "the way from the outbox to the broker was",
    "p50_ms": "the latencies were",
}


def broker_cores(measured: MeasuredSide) -> dict[str, float | None]:
    """How many cores the broker used while each figure was taken, on average of its rounds."""
    broker = measured.side.broker

    def used(spent: Iterable[tuple[Mapping[str, float], float]]) -> float | None:
        rows = list(spent)
        seconds = sum(length_s for _, length_s in rows)
        return sum(cpu_s.get(broker, 0.0) for cpu_s, _ in rows) / seconds if seconds else None

    steady = used((result.cpu_s, result.seconds) for result in measured.steady)
    return {
        "effects_per_s": used((result.cpu_s, result.seconds) for result in measured.backlogs),
        "relay_events_per_s": used((result.relay_cpu_s, result.relay_seconds) for result in measured.backlogs),
        "p50_ms": steady,
        "p99_ms": steady,
    }


def _side_notes(measured: MeasuredSide) -> Iterator[str]:
    if not measured.verdict.sound:
        yield "events were lost, doubled, reordered or left behind: no figure is given."
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
    if result.latencies.endless:
        yield (
            f"in {result.phase} {result.latencies.endless} of {load.operations} requests had no effect: they are "
            "among the latencies with the time that was waited for them."
        )
    if result.latencies.negative:
        yield f"in {result.phase} {result.latencies.negative} latencies are negative (the clock stepped)."
    if abs(result.clock_drift_s) > _DRIFT_MAX_S:
        yield f"in {result.phase} the wall clock moved by {result.clock_drift_s * 1_000:.1f} ms."


def _client_limited(result: SteadyResult) -> bool:
    return result.load.late > _LATE_SHARE_MAX * result.load.operations


def _failing(result: SteadyResult) -> bool:
    return result.latencies.endless > _FAILED_SHARE_MAX * result.load.operations


def _calm(outcome: RunResult) -> bool:
    return _share(outcome, OTHERS) <= _OTHERS_SHARE_MAX


def _share(outcome: RunResult, group: str) -> float:
    """The part of the machine's CPU time that a group used while figures were taken."""
    results: list[SteadyResult | BacklogResult] = []
    for measured in outcome.sides.values():
        results += [*measured.steady, *measured.backlogs]
    available_s = sum(result.seconds for result in results) * float(outcome.hardware["cores"] or 1)
    return sum(result.cpu_s.get(group, 0.0) for result in results) / available_s if available_s else 0.0
