"""Says what a reader must know before believing a run's figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from compare import judgement
from compare.controls import Control
from compare.limiter import BROKER, NONE, UNKNOWN, Limiter, limiters
from compare.measured import FOREIGN_SHARE_MAX, MeasuredSide, SteadyResult
from compare.run import RunResult
from compare.statistics import PAIRS_MIN, compare_pairs, drifting
from compare.warming import WITHIN
from deploy.topology import BrokerName
from experiment.figures import SHORT_S
from experiment.usage import GENERATOR, STOLEN
from experiment.workload import FigureName

_DRIFT_MAX_S = 0.001
_DRIFTS: dict[FigureName, str] = {
    "effects_per_s": "effects/s",
    "relay_events_per_s": "events/s from the outbox to the broker",
    "p50_ms": "p50",
    "p99_ms": "p99",
}
_TITLES: dict[FigureName, str] = {
    "effects_per_s": "the drain was",
    "relay_events_per_s": "the way from the outbox to the broker was",
    "p50_ms": "the latencies were",
}


def notes(outcome: RunResult, controls: Sequence[Control]) -> list[str]:
    """What a reader must know, in sentences, the gravest first."""
    unequal = "; ".join(f"({number}) {what}" for number, what in enumerate(outcome.settings["unequal"], start=1))
    found = [_cut_short(outcome)] if outcome.cut_short else []
    found += [f"this compares Tandem on two brokers, which are unequal besides: {unequal}."]
    found += _of_containers(outcome)
    found += _of_own_brokers(outcome)
    found += [
        f"the control {control.name} failed{f' on {control.broker}' if control.broker else ''}: planted was "
        f"{control.planted}, found {control.found}. So nothing that this run says can be believed."
        for control in controls
        if not control.passed
    ]
    if not judgement.calm(outcome):
        found.append(
            "the machine was not calm: programs that do not belong to the run, and the hypervisor, used up to "
            f"{judgement.foreign_share_max(outcome):.0%} of its CPU time while a figure was taken, and again when "
            f"it was taken once more. The hypervisor's part (steal) was {judgement.share(outcome, STOLEN):.0%} on "
            "average."
        )
    # A pair is void together, so that both sides name the same rounds.
    if void := sorted({result.phase for measured in outcome.sides.values() for result in measured.void}):
        found.append(
            f"void, and run again on both brokers: {', '.join(void)}; on one of them other programs used over "
            f"{FOREIGN_SHARE_MAX:.0%} of the CPU time."
        )
    found += _client_limited(outcome)
    found += _too_short(outcome)
    found += _drifts(outcome)
    found += _repeats({broker: measured.controls.repeated for broker, measured in outcome.sides.items()})
    for broker, measured in outcome.sides.items():
        found += [f"{broker}: {note}" for note in _side_notes(measured)]
        if outcome.workload.freeze and not measured.can_be_frozen:
            found.append(f"{broker}: not frozen meanwhile: its broker is no process of this run.")
    found.append(f"the load generator used {judgement.share(outcome, GENERATOR):.0%} of the CPU time meanwhile.")
    found.append(f"profile {outcome.settings['profile']}.")
    rounds, needed = outcome.workload.rounds, judgement.needed(outcome)
    if rounds < needed:
        found.append(
            f"{rounds} round(s) are a first impression and no comparison: about "
            f"{len(outcome.workload.primary)} figure(s) nothing can be decided with fewer than {needed} rounds, "
            "each of which is a pair."
        )
    return found


def _cut_short(outcome: RunResult) -> str:
    rounds = min(len(measured.steady) for measured in outcome.sides.values())
    return (
        f"this run was cut short: {outcome.cut_short}. What is here was measured before, in {rounds} whole pairs "
        f"of {outcome.workload.rounds}; its events were not checked, and nothing is decided."
    )


def _client_limited(outcome: RunResult) -> Iterator[str]:
    cores = {broker: judgement.broker_cores(measured) for broker, measured in outcome.sides.items()}
    machine_cores = float(outcome.hardware["cores"] or 1)
    limited = {broker: limiters(measured, machine_cores) for broker, measured in outcome.sides.items()}
    for name, title in _TITLES.items():
        found = {broker: of_figures[name] for broker, of_figures in limited.items()}
        if all(limiter is not None and limiter.name not in (BROKER, UNKNOWN) for limiter in found.values()):
            known = {broker: each for broker, each in cores.items() if outcome.sides[broker].broker_measured}
            said = ", ".join(f"{broker} {_held_up(limiter)}" for broker, limiter in found.items() if limiter)
            of_known = ", ".join(f"{broker} {of_figures[name] or 0:.2f}" for broker, of_figures in known.items())
            used = f"; the brokers used {of_known} cores" if known else ""
            yield (
                f"{title} not limited by a broker: {said}{used}. "
                "The figures are those of the clients, the services and the load."
            )


def _too_short(outcome: RunResult) -> Iterator[str]:
    """Which rates were taken over so short a time that one hiccough of the machine decides them."""
    for broker, measured in outcome.sides.items():
        for title, rates in {
            "the drain": [each.drain for each in measured.backlogs],
            "the way from the outbox to the broker": [each.relay for each in measured.backlogs],
        }.items():
            shortest = min((rate.seconds for rate in rates if rate.per_s), default=SHORT_S)
            if shortest < SHORT_S:
                yield (
                    f"{broker}: the rate of {title} was taken over as little as {shortest:.2f} s, which is an "
                    "order of magnitude and no figure, and so is its limiter; ask for more backlog.events."
                )


def _repeats(sides: Mapping[BrokerName, Mapping[int, SteadyResult]]) -> Iterator[str]:
    """What the loads that A/A repeats say of one broker to the other: the same run, a second time."""
    (one, first), (other, second) = sides.items()
    said = []
    for name, percent in {"p50": 50, "p99": 99}.items():
        pairs = [
            (left, right)
            for number, each in first.items()
            if number in second
            and (left := each.latencies.percentile_ms(percent))
            and (right := second[number].latencies.percentile_ms(percent))
        ]
        if len(pairs) >= PAIRS_MIN:
            said.append(f"{name} {_ratio(pairs)}")
    if said:
        yield f"the repeated loads of A/A, {other} to {one}, of which no verdict is taken: {', '.join(said)}."


def _ratio(pairs: Sequence[tuple[float, float]]) -> str:
    """The ratio of pairs, with its interval."""
    found = compare_pairs(pairs)
    return f"{found.ratio:.2f} ({found.low:.2f} to {found.high:.2f})"


def _held_up(limiter: Limiter) -> str:
    """By whom, or, where nothing was used up, who used the most all the same."""
    nothing = f"by nothing that was used up (its busiest part: {limiter.cores:.2f} cores)"
    return nothing if limiter.name == NONE else f"by {limiter}"


def _drifts(outcome: RunResult) -> Iterator[str]:
    """What changed from the first round to the last: of each side, and of one side to the other."""
    sides, margin = outcome.sides, outcome.workload.margin
    of_each = {broker: measured.by_round() for broker, measured in sides.items() if measured.sound}
    for name, title in _DRIFTS.items():
        for broker, figures in of_each.items():
            known = [value for value in figures[name] if value]
            if len(known) == len(figures[name]) and (drift := drifting(known, margin)):
                yield (
                    f"{broker}: {title} changed by {drift.factor - 1:+.0%} from the first round to the last, and "
                    f"hardly by chance (p = {drift.p:.4f}). What both sides have in common of it is in no ratio, "
                    "since rounds are compared in pairs; ask for a longer warm_up."
                )


def _of_containers(outcome: RunResult) -> Iterator[str]:
    """What of it ran in containers, within which limits, and what is measured otherwise there."""
    told = outcome.settings.get("containers")
    if told is None:
        return
    limits = told["rabbit"]
    yield (
        f"the servers ran in containers ({told['engine']}), each broker with at most {limits['cpus']:g} CPUs and "
        f"{limits['memory_mib']:,} MiB; the services and the load as processes in one more, without a limit. A "
        "broker's memory is its container's, with what the kernel keeps of its files there: the highest of four "
        "looks at each backlog."
    )
    if any("written" in figure for figure in outcome.settings.get("not_measured", ())):
        yield "what the servers wrote to the disk is not measured: version 1 of control groups does not tell."


def _of_own_brokers(outcome: RunResult) -> Iterator[str]:
    """What cannot be known of brokers that the run did not start."""
    for broker, where in outcome.settings.get("own_brokers", {}).items():
        yield (
            f"{broker} is one's own, at {where}: its CPU, memory and disk, the time of its fsync, and who else "
            "used it meanwhile are not measured, and its settings are not read. If it is on this machine, what it "
            "uses counts as other programs'."
        )
    for broker in outcome.settings.get("not_checked", []):
        yield f"{broker}: what it promises by confirming an event is not checked; the profile says what it should."
    for sentence in outcome.left_behind:
        yield f"not deleted: {sentence}."


def _side_notes(measured: MeasuredSide) -> Iterator[str]:
    yield from _warm_up_notes(measured)
    lag, allowed = judgement.lag_ms(measured)
    if lag > allowed:
        yield (
            f"the load generator was late: one request in a hundred was sent {lag:.1f} ms after its time, or "
            f"later, where {allowed:.1f} ms are allowed."
        )
    if not measured.sound:
        yield "events were lost, doubled, reordered or left behind: no figure is given."
    if measured.layer_failure:
        yield f"the layers are not whole: {measured.layer_failure}."
    if measured.passage.unstamped:
        yield f"{measured.passage.unstamped} effects lack a stamp; PostgreSQL's commit time stands in for it."
    for result in measured.steady:
        yield from _steady_notes(result)
    for backlog in measured.backlogs:
        if backlog.waiting != backlog.events:
            yield f"in {backlog.phase} {backlog.waiting} of {backlog.events} events waited when the drain began."


def _warm_up_notes(measured: MeasuredSide) -> Iterator[str]:
    found = measured.warm_up
    if found is None:
        return
    medians = ", ".join(f"{each:.1f}" for each in found.medians_ms)
    if found.stationary is None:
        yield f"whether it was warm after {found.seconds:g} s of warm-up was not tried: too few events."
    elif not found.stationary:
        yield (
            f"after {found.seconds:g} s of warm-up, the most that the workload allows, its median latency still "
            f"changed by over {WITHIN:.0%} from one window to the next ({medians} ms): the first rounds may be "
            "those of a cold system."
        )


def _steady_notes(result: SteadyResult) -> Iterator[str]:
    load = result.load
    if judgement.client_limited(result):
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
