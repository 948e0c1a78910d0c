"""Makes the summary of a run, as plain data: summary.json, and what the table is printed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC
from math import isfinite
from statistics import median
from typing import Any

from compare import judgement, ladder, layers, scenarios
from compare.controls import judge_controls
from compare.cost import costs
from compare.document import FORMAT
from compare.measured import BacklogResult, ControlPhases, MeasuredSide, SteadyResult, WarmUpResult
from compare.notes import notes
from compare.run import RunResult
from experiment import figures
from experiment.figures import Latencies
from experiment.stamps import ASIDE, STAGES, Stages
from experiment.workload import FigureName

DISCLAIMER = (
    "The numbers belong to this machine, on which brokers, database, services and load generator share the CPUs, "
    "and to Tandem on each broker through its client: no ratio of two columns is one of the brokers."
)
DISCLAIMER_OF_OWN = (
    "The numbers belong to these machines, to the network between them, to whatever else the brokers did "
    "meanwhile, and to Tandem on each broker through its client: no ratio of two columns is one of the brokers."
)
_EXAMPLES_MAX = 5


def summarise(outcome: RunResult, command: str) -> dict[str, Any]:
    """Everything about a run; `command` is what does it again."""
    brokers = {broker: _broker(measured) for broker, measured in outcome.sides.items()}
    for broker, found in costs(outcome.sides).items():
        sound = outcome.sides[broker].sound
        brokers[broker]["cost"] |= found if sound else dict.fromkeys(found)
    machine_cores = float(outcome.hardware["cores"] or 1)
    for broker, measured in outcome.sides.items():
        brokers[broker]["ladder"] = ladder.figures(measured, machine_cores)
        brokers[broker]["scenarios"] = scenarios.figures(measured)
        brokers[broker]["layers"] = layers.figures(measured, machine_cores)
    controls = [] if outcome.cut_short else judge_controls(outcome.sides, outcome.workload)
    figures_compared = judgement.comparison(outcome, brokers, controls)
    return {
        "format": FORMAT,
        "cut_short": outcome.cut_short,
        "brokers": brokers,
        "comparison": figures_compared,
        "differences": {name: row["sentence"] for name, row in figures_compared.items()},
        "controls": [asdict(control) for control in controls],
        "notes": notes(outcome, controls),
        "workload": outcome.workload.model_dump(mode="json"),
        "settings": outcome.settings,
        "versions": outcome.versions,
        "hardware": outcome.hardware,
        "definitions": {
            "effects_per_s": figures.EFFECTS_PER_S,
            "relay_events_per_s": figures.RELAY_EVENTS_PER_S,
            "p50_ms, p99_ms": figures.LATENCY,
            "range": "lowest and highest of the rounds; the figure itself is the median of the rounds (rates) or "
            "the percentile of all rounds' samples together (latencies)",
            "comparison": "rounds are pairs; the ratio is the median of the pairs' ratios; p is that of the exact "
            "two-sided sign-flip test, p_holm the same after Holm's adjustment over the primary figures; the "
            "interval holds the ratios that the test does not refuse; better: p_holm of 5 % at most and a median "
            "beyond the margin; equivalent: the whole interval within the margin",
            "backlog": "written through the services' own domain, tables and outbox, not over HTTP, in one "
            "transaction of each while the consumer is stopped; relayed to the broker before the consumer is "
            "started",
            **{f"stages.{name}": f"{words}; in ms" for name, words in {**STAGES, **ASIDE}.items()},
            "idle_cores": "what a part used while the other side worked (with `freeze`: while neither did); "
            "..._cpu_us_per_event: its CPU beyond that, by event of the steady load, relayed, or drained (median "
            "of the phases)",
            "bytes_written": "to the disk, by processes of the server that still run, from when a backlog was "
            "written until it was drained, by its events; log_growth: by what the broker's files, with what it "
            "has set aside for them, were larger then",
            "disk_flushes": "how often the disk of the run was told to keep what it has, for an fsync and the "
            "like, by whomever on this machine, while a steady load ran, or from when a backlog was written until "
            "it was drained, by their events",
            "limiter": "who used 0.7 of a core or more while the figure was taken (client CPU: the busiest "
            "process of the services), or the most on a machine that was 90 % busy (foreign load: where half of "
            "that was other programs'); else disk, where some process waited for one half of the time; else none, "
            "or unknown, where what the broker uses is not seen",
            "ladder": ladder.DEFINITION,
            "scenarios": scenarios.DEFINITION,
            "layers": layers.DEFINITION,
            "corrupted": "a digest of the bytes that the relay handed to the broker's client is not that of the "
            "bytes that the consumer was given",
            "lost": "acknowledged to the client, no effect, and nowhere on the way",
        },
        "disclaimer": DISCLAIMER_OF_OWN if outcome.settings.get("own_brokers") else DISCLAIMER,
        "command": command,
        "started_at": outcome.started_at.astimezone(UTC).isoformat(timespec="seconds"),
        "took_s": round(outcome.took_s, 1),
    }


def _broker(measured: MeasuredSide) -> dict[str, Any]:
    verdict = measured.verdict
    together, stages = Latencies(), Stages()
    for result in measured.steady:
        together.add(result.latencies)
        stages.add(result.stages)
    by_round: dict[FigureName, list[float | None]] = measured.by_round()
    of_all: dict[str, float | None] = {
        "effects_per_s": _median(by_round["effects_per_s"]),
        "p50_ms": together.percentile_ms(50),
        "p99_ms": together.percentile_ms(99),
        "relay_events_per_s": _median(by_round["relay_events_per_s"]),
    }
    if not measured.sound:
        # Work that was not done, or done twice, has neither a speed nor a price. The rounds are kept as evidence.
        by_round, of_all = {name: [] for name in by_round}, dict.fromkeys(of_all)
    return {
        **of_all,
        **verdict.counts(),
        **_passage(measured),
        "beside_wrong": len(measured.beside_wrong),
        "broker_cores": {name: _rounded(used, 3) for name, used in judgement.broker_cores(measured).items()},
        "by_round": by_round,
        "range": {name: _range(values) for name, values in by_round.items()},
        "latency": together.figures() if measured.sound else None,
        "stages": stages.figures() if measured.sound else {},
        "cost": _cost(measured),
        "warm_up": _warm_up(measured.warm_up),
        "steady_rounds": [_steady(result) for result in measured.steady],
        "backlog_rounds": [_backlog(result) for result in measured.backlogs],
        "void_rounds": [result.phase for result in measured.void],
        "control_rounds": _controls(measured.controls),
        "examples": _examples(measured),
    }


def _warm_up(result: WarmUpResult | None) -> dict[str, Any] | None:
    if result is None:
        return None
    medians = [_rounded(each, 3) if isfinite(each) else None for each in result.medians_ms]
    return {"seconds": round(result.seconds, 1), "p50_ms": medians, "stationary": result.stationary}


def _controls(controls: ControlPhases) -> dict[str, Any]:
    """The rounds of the controls, as those that are compared; empty where there were none."""
    found = {
        "repeated": [_steady(result) for result in controls.repeated.values()],
        "delayed": [_steady(result) for result in controls.delayed.values()],
        "slowed": [_backlog(result) for result in controls.slowed.values()],
        "delays_took_ms": [round(delay_s * 1_000, 2) for delay_s in sorted(controls.delays_s)[::100]],
    }
    return {name: rows for name, rows in found.items() if rows}


def _passage(measured: MeasuredSide) -> dict[str, int]:
    counts = asdict(measured.passage)
    return {name: count for name, count in counts.items() if name != "stamped"}


def _steady(result: SteadyResult) -> dict[str, Any]:
    return {
        "phase": result.phase,
        "latency": result.latencies.figures(),
        "load": result.load.figures(),
        "cpu_s": result.cpu_s,
        "process_cpu_s": _used(result.details.process_cpu_s),
        "disk_stalled_s": result.details.stalled_s,
        "disk_flushes": result.details.disk_flushes,
        "seconds": round(result.seconds, 3),
        "clock_drift_ms": round(result.clock_drift_s * 1_000, 3),
    }


def _backlog(result: BacklogResult) -> dict[str, Any]:
    return {
        "phase": result.phase,
        "events": result.events,
        "waiting_at_start": result.waiting,
        "effects_per_s": _rounded(result.drain.per_s),
        "effects_measured": result.drain.count,
        "seconds_measured": round(result.drain.seconds, 3),
        "effects_per_s_first_to_last": _rounded(result.whole.per_s),
        "consumer_start_to_first_effect_s": _rounded(result.first_effect_s, 3),
        "relay_events_per_s": _rounded(result.relay.per_s),
        "relay_seconds_measured": round(result.relay.seconds, 3),
        "relay_cpu_s": result.relay_cpu_s,
        "relay_cpu_window_s": round(result.relay_seconds, 3),
        "cpu_s": result.cpu_s,
        "cpu_effects": result.cpu_effects,
        "process_cpu_s": _used(result.details.process_cpu_s),
        "relay_process_cpu_s": _used(result.relay_details.process_cpu_s),
        "disk_stalled_s": result.details.stalled_s,
        "events_per_batch": dict(result.events_per_batch),
        "written_bytes": dict(result.kept.written_bytes),
        "disk_flushes": result.kept.disk_flushes,
        "broker_stored_bytes": result.kept.stored_bytes,
        "cpu_window_s": round(result.seconds, 3),
        "broker_memory_mib": None
        if result.broker_memory_bytes is None
        else round(result.broker_memory_bytes / 2**20),
        "clock_drift_ms": round(result.clock_drift_s * 1_000, 3),
    }


def _cost(measured: MeasuredSide) -> dict[str, Any]:
    """CPU seconds per 100,000 effects while draining, by who spent them, idle or not; None: not measured."""
    broker, results = measured.side.broker, measured.backlogs if measured.sound else []
    parts = (broker, "postgres", "redis", f"{broker}_services")
    effects = sum(result.cpu_effects for result in results)
    spent = {part: sum(result.cpu_s.get(part, 0.0) for result in results) for part in parts}
    names = ("broker", "postgres", "redis", "services")
    known = dict(zip(names, parts, strict=True)) if effects else {}
    if not measured.broker_measured:
        known.pop("broker", None)
    return {
        f"{name}_cpu_s_per_100k_effects": _rounded(spent[known[name]] / effects * 100_000, 1)
        if name in known
        else None
        for name in names
    }


def _used(cpu_s: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds for name, seconds in cpu_s.items() if seconds}


def _examples(measured: MeasuredSide) -> dict[str, list[str]]:
    verdict = measured.verdict
    found: dict[str, Sequence[Any]] = {
        "lost": verdict.lost,
        "stuck": verdict.stuck,
        "dead_lettered": verdict.dead_lettered,
        "stale": verdict.stale,
        "duplicate_effects": verdict.duplicate_effects,
        "reordered": verdict.reordered,
        "unexpected": verdict.unexpected,
    }
    examples = {
        name: [" ".join(str(part) for part in item.identity or ("unknown",)) for item in items[:_EXAMPLES_MAX]]
        for name, items in found.items()
        if items
    }
    return examples | ({"beside_wrong": measured.beside_wrong[:_EXAMPLES_MAX]} if measured.beside_wrong else {})


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Sequence[float | None]) -> float | None:
    present = _present(values)
    return _rounded(median(present)) if present else None


def _range(values: Sequence[float | None]) -> list[float | None]:
    present = _present(values)
    ends: list[Callable[[list[float]], float]] = [min, max]
    return [_rounded(end(present), 3) for end in ends] if present else [None, None]


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
