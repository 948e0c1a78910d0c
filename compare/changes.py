"""Says what changed between two runs, with the statistics of one: on each broker, rounds of equal number are
pairs."""

from __future__ import annotations

from collections.abc import Mapping
from math import isinf
from typing import Any

from compare.document import ChangedFigure, Changes, Circumstance, ComparedFigure, Summary, flattened
from compare.statistics import Claim, Estimate, compare_pairs, judge
from deploy.topology import BrokerName

_MAY_DIFFER = frozenset({"name", "rounds", "primary", "margin", "controls", "warm_up.steady_s_max"})
"""Of a workload: what changes no figure. For how long a side may be warmed up is a limit: until it is warm."""
_SINCE: Mapping[str, Any] = {
    "payload_bytes": 0,
    "consumers": 1,
    "freeze": False,
    "backlog.updates_share": 0.0,
    "backlog.key_skew": 1.0,
}
"""Of a workload: what the runs of earlier versions had, whose files do not name it."""
_EVER_OTHER = frozenset({"busy_before_percent", "fsync_ms"})
"""Of a machine: what is measured anew, and is never twice the same."""
_MACHINE = ("cpu", "cores", "memory_gib", "disk")


def changes(base: Summary, now: Summary, where: str) -> Changes:
    """What changed since `base`, whose report is at `where`; Holm's adjustment is over one broker's figures."""
    refused = _refused(base, now)
    return Changes(
        base=where,
        base_started_at=base.started_at,
        refused=refused,
        figures={} if refused else {broker: _figures(base, now, broker) for broker in now.brokers},
        circumstances=list(_circumstances(base, now)),
    )


def _refused(base: Summary, now: Summary) -> str | None:
    if base.cut_short or now.cut_short:
        return "a run was cut short"
    before, after = {**_SINCE, **_load(base.workload)}, {**_SINCE, **_load(now.workload)}
    load = sorted(key for key in {**before, **after} if before.get(key) != after.get(key))
    if load:
        return f"the runs had another load: {', '.join(load)}"
    machine = [key for key in _MACHINE if base.hardware.get(key) != now.hardware.get(key)]
    if machine:
        return f"the runs were on other machines: {', '.join(machine)}"
    if base.brokers.keys() != now.brokers.keys():
        return "the runs had other brokers"
    return None


def _load(workload: Mapping[str, Any]) -> dict[str, Any]:
    """What changes figures of a workload, by name; a field of one of its parts has a dot in its."""
    fields: dict[str, Any] = {}
    for name, value in workload.items():
        within = {f"{name}.{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {}
        fields |= within or {name: value}
    return {name: value for name, value in fields.items() if not {name, name.split(".")[0]} & _MAY_DIFFER}


def _figures(base: Summary, now: Summary, broker: BrokerName) -> dict[str, ChangedFigure]:
    names = [name for name in now.comparison if name in base.comparison]
    primary = [name for name in names if now.comparison[name].primary]
    reasons = {name: _reason(base.comparison[name], now.comparison[name]) for name in names}
    estimates: dict[str, Estimate] = {}
    for name in names:
        before, after = (run.brokers[broker].by_round.get(name, []) for run in (base, now))
        pairs = [(one, other) for one, other in zip(before, after, strict=False) if one and other]
        if pairs and len(pairs) == min(len(before), len(after)) and not reasons[name]:
            estimates[name] = compare_pairs(pairs)
    claims = judge(estimates, primary, float(now.workload.get("margin", 0.1)))
    return {
        name: _figure(now.comparison[name], estimates.get(name), claims.get(name), reasons[name]) for name in names
    }


def _reason(base: ComparedFigure, now: ComparedFigure) -> str | None:
    """What forbids a verdict within either run forbids one between them."""
    for run, row in (("the other run", base), ("this run", now)):
        if row.verdict == "none":
            return f"{run}: {row.why}"
    return None


def _figure(row: ComparedFigure, one: Estimate | None, claim: Claim | None, reason: str | None) -> ChangedFigure:
    if one is None or claim is None:
        return ChangedFigure(
            title=row.title,
            pairs=0,
            ratio=None,
            interval=None,
            p_holm=None,
            verdict="none",
            sentence=f"no verdict: {reason or 'no figure'}",
        )
    said: Any = claim.said
    if claim.said == "better" and (one.ratio > 1) != (row.better == "higher"):
        said = "worse"
    return ChangedFigure(
        title=row.title,
        pairs=one.pairs,
        ratio=round(one.ratio, 4),
        interval=None if isinf(one.high) else (round(one.low, 4), round(one.high, 4)),
        p_holm=claim.p_holm,
        verdict=said,
        sentence=_sentence(said, one),
    )


def _sentence(said: str, one: Estimate) -> str:
    if said == "not named":
        return "no verdict: not named beforehand"
    if isinf(one.high):
        return f"{said}: {one.pairs} pair(s) of rounds are too few"
    around = f"{one.low - 1:+.0%} to {one.high - 1:+.0%}"
    return f"{said}: {one.ratio - 1:+.0%} ({around})" if said in {"better", "worse"} else f"{said}: {around}"


def _circumstances(base: Summary, now: Summary) -> list[Circumstance]:
    before, after = _flat(base), _flat(now)
    return [
        Circumstance(what=name, before=before.get(name, "not there"), now=after.get(name, "not there"))
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _flat(run: Summary) -> Mapping[str, str]:
    hardware = {key: value for key, value in run.hardware.items() if key not in _EVER_OTHER}
    return dict(
        flattened({"workload": run.workload, "versions": run.versions, "hardware": hardware, **run.settings})
    )
