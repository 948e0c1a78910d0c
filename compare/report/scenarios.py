"""The scenarios in words: what the latency is while something happens, and what came of it."""

from __future__ import annotations

from compare.document import BrokerFigures, ScenarioFigures, Summary
from compare.report.svg import number
from experiment.facts import TITLES

TITLES_OF_KINDS = {
    "bursts": "the requests of a second in its first tenth",
    "live-drain": "a backlog drained beside it",
    "past-http": "without HTTP, from the outbox on",
    "slow-consumer": "a slow consumer",
    "poison": "poison among the events",
    "killed-consumer": "the consumer killed after a third of the time",
    "request-reply": "requests and replies beside it",
    "jobs": "chains and groups of jobs beside it",
    "fan-out": "more subscribers of the same events",
}
_FOUND = {
    "drained_s": "backlog drained in {} s",
    "dead_letters": "{} dead letters",
    "silent_s": "{} s without an effect after the kill",
}
_BESIDE = {
    "request-reply": "request to reply",
    "jobs": "job due to its end",
    "fan-out": "request to the last effect",
}
_COUNTS = {
    "answered": "{} answered",
    "timed_out": "{} without an answer in time",
    "refused": "{} not sent or refused",
    "done_unanswered": "{} done though not answered",
    "ended": "{} jobs ended",
    "steps": "{} steps",
    "unanswered": "{} not accepted",
    "events": "{} events",
    "effects": "{} effects besides",
}


def heads(summary: Summary) -> list[str]:
    """The heads of the table."""
    figures = ("p50", "p99", "highest", "found")
    return ["scenario", *(f"{TITLES[broker]} {figure}" for broker in summary.brokers for figure in figures)]


def rows(summary: Summary) -> list[list[str]]:
    """A row for each scenario; empty where none was played."""
    kinds = dict.fromkeys(found.kind for one in summary.brokers.values() for found in one.scenarios)
    return [
        [
            TITLES_OF_KINDS.get(kind, kind),
            *(cell for one in summary.brokers.values() for cell in _cells(one, kind)),
        ]
        for kind in kinds
    ]


def _cells(one: BrokerFigures, kind: str) -> list[str]:
    found: ScenarioFigures | None = next((each for each in one.scenarios if each.kind == kind), None)
    if found is None:
        return ["none"] * 4
    few = f"{found.samples:,} samples"
    times = [few if value is None else number(value) for value in (found.p50_ms, found.p99_ms, found.max_ms)]
    besides = [_FOUND.get(name, f"{name} {{}}").format(_said(value)) for name, value in found.found.items()]
    return [*times, "; ".join([*besides, *_beside(found)]) or "nothing else"]


def _beside(found: ScenarioFigures) -> list[str]:
    """What ran beside the orders: how long it took, and the counts that are not 0."""
    one = found.beside
    if one is None:
        return []
    times = {"p50": one.p50_ms, "p99": one.p99_ms, "highest": one.max_ms}
    took = ", ".join(f"{name} {number(value)} ms" for name, value in times.items() if value is not None)
    counts = [
        _COUNTS.get(name, f"{name} {{}}").format(f"{count:,}") for name, count in one.counts.items() if count
    ]
    return [f"{_BESIDE.get(found.kind, found.kind)}: {took or 'nothing measured'}", *counts]


def _said(value: float | None) -> str:
    return "none" if value is None else number(value)
