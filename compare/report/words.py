"""The run in sentences: what was decided, what became of the events, what the two sides are."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from compare.document import UNSOUND, ChangedFigure, ComparedFigure, LadderFigures, Summary, WarmUpFigures
from compare.report.svg import number
from deploy.topology import BrokerName
from experiment.facts import TITLES
from experiment.stamps import ASIDE
from experiment.stamps import STAGES as IN_TURN

COUNTS = {
    "acknowledged": "events acknowledged",
    "lost": "lost",
    "duplicate_effects": "duplicate effects",
    "reordered": "reordered within a key",
    "delivered_out_of_order": "delivered out of order",
    "committed_out_of_order": "committed out of order",
    "corrupted": "arrived with other bytes",
    "stuck": "stuck",
    "dead_lettered": "dead-lettered",
    "stale": "stale copies of users",
    "unexpected": "effects nobody asked for",
    "beside_wrong": "beside the orders: lost, doubled, wrong",
    "indeterminate_recovered": "unanswered, yet done",
    "duplicate_deliveries": "delivered again (allowed)",
    "unstamped": "effects without all stamps",
}
COSTS = {
    "broker_idle_cores": "idle, cores: broker",
    "services_idle_cores": "idle, cores: services",
    "broker_steady_cpu_us_per_event": "CPU µs per event beyond idle, steady load: broker",
    "services_steady_cpu_us_per_event": "CPU µs per event beyond idle, steady load: services",
    "broker_relay_cpu_us_per_event": "CPU µs per event beyond idle, relayed: broker",
    "services_relay_cpu_us_per_event": "CPU µs per event beyond idle, relayed: services",
    "broker_drain_cpu_us_per_event": "CPU µs per event beyond idle, drained: broker",
    "services_drain_cpu_us_per_event": "CPU µs per event beyond idle, drained: services",
    "broker_bytes_written_per_event": "bytes written to disk per event: broker",
    "postgres_bytes_written_per_event": "bytes written to disk per event: PostgreSQL",
    "broker_log_growth_bytes_per_event": "bytes that the broker's files grew by, per event",
    "disk_flushes_steady_per_event": "flushes of the disk per event, steady load: the whole machine",
    "disk_flushes_backlog_per_1000_events": "flushes of the disk per 1,000 events, relayed and drained: the same",
    "broker_memory_mib": "broker memory at its highest, from build to drain, MiB",
}
STAGES = {
    "to_send": "sending",
    "to_relay": "HTTP, relay",
    "to_consumer": "broker",
    "to_effect": "effect",
}
STAGE_TITLES = {**IN_TURN, **ASIDE}
CHANGE_HEADS = ["figure", "this run to the other", "n", "said"]
CAVEAT = (
    "Rounds of equal number are pairs. The two runs were made at different times: whatever else the machine did "
    "differently is among the changes."
)
SHOWN_WHERE_ANY = frozenset(
    {
        "stale",
        "indeterminate_recovered",
        "delivered_out_of_order",
        "committed_out_of_order",
        "unstamped",
        "beside_wrong",
    }
)
"""Counts that are left out where there are none."""


def title(summary: Summary) -> str:
    versions = (f"{TITLES[broker]} {summary.versions.get(broker, '')}".strip() for broker in summary.brokers)
    return f"Tandem on {' and on '.join(versions)}"


NOT_MEASURED = "not measured"


def verdict(summary: Summary) -> str:
    """The sentence that a reader takes away, or one for each figure that was named beforehand."""
    return " ".join(verdicts(summary))


def verdicts(summary: Summary) -> list[str]:
    """What the figures named beforehand say, one by one, and of whom it is not checked what it promises."""
    named = " and ".join(TITLES[broker] for broker in summary.not_checked)
    doubt = [f"Not checked: what {named}, one's own, promises by confirming an event."] if named else []
    return [*_verdicts(summary), *doubt]


def cost(summary: Summary, broker: BrokerName, name: str) -> str:
    """A figure of cost as a cell: one of a broker that is somebody's own is not measured, and some are nowhere."""
    value = summary.brokers[broker].cost.get(name)
    own = name.startswith("broker_") and broker in summary.own_brokers
    if value is None and (own or name in summary.not_measured):
        return NOT_MEASURED
    return "none" if value is None else number(value)


def _verdicts(summary: Summary) -> list[str]:
    if summary.cut_short:
        return [f"No verdict: the run was cut short: {summary.cut_short}."]
    if not summary.sound:
        return ["No verdict: events were lost, doubled, reordered or left behind."]
    primary = [row for row in summary.comparison.values() if row.primary] or list(summary.comparison.values())
    decided = [row for row in primary if row.verdict in {"better", "equivalent"}]
    if not decided:
        reasons = list(dict.fromkeys(row.sentence.removeprefix("no verdict: ") for row in primary))
        return [f"No verdict: {'; '.join(reasons)}."]
    return [f"{_decision(summary, row)}." for row in primary]


def soundness(summary: Summary) -> str:
    """What became of the events."""
    if summary.cut_short:
        return "What became of the events was not checked."
    found = [
        f"{TITLES[broker]}: {getattr(row, name):,} {COUNTS[name]}"
        for broker, row in summary.brokers.items()
        for name in UNSOUND
        if getattr(row, name)
    ]
    if found:
        return f"The check of every event found: {'; '.join(found)}."
    events = sum(row.acknowledged for row in summary.brokers.values())
    return (
        f"None of {events:,} acknowledged events was lost, doubled, reordered or left behind, on either broker. "
        "No server was stopped meanwhile: make faults does that."
    )


def when(summary: Summary) -> str:
    """When the run began, and how long it took."""
    began = datetime.fromisoformat(summary.started_at).astimezone(UTC)
    minutes, seconds = divmod(round(summary.took_s), 60)
    return f"{began:%d %B %Y, %H:%M} UTC · took {minutes} min {seconds} s"


def load(summary: Summary) -> str:
    """The workload in a line, as far as its file says it."""
    steady, backlog = summary.workload.get("steady", {}), summary.workload.get("backlog", {})
    return (
        f"{summary.workload.get('name', 'workload')}: {summary.workload.get('rounds')} round(s) in pairs, "
        f"{steady.get('orders_per_s', 0):g} orders/s for {steady.get('duration_s', 0):g} s, "
        f"backlog of {backlog.get('events', 0):,}, {out_of_the_usual(summary.workload)}"
        f"{summary.hardware.get('cores')} cores"
    )


def out_of_the_usual(workload: Mapping[str, Any], then: str = ", ") -> str:
    """How much larger the orders were made, how much of the backlog has hot keys, and how many consumers there
    were; nothing where all is as usual."""
    size, consumers = workload.get("payload_bytes", 0), workload.get("consumers", 1)
    share = workload.get("backlog", {}).get("updates_share", 0)
    said = [
        f"notes of {size:,} bytes" if size else "",
        f"{share:.0%} of the backlog changes of users" if share else "",
        f"{consumers} consumers" if consumers > 1 else "",
    ]
    return "".join(f"{each}{then}" for each in said if each)


def interval(row: ComparedFigure | ChangedFigure) -> str:
    """The ratio with its interval, as a table shows it."""
    if row.ratio is None or row.interval is None:
        return "none"  # a ratio without an interval would be read all the same
    low, high = row.interval
    return f"{row.ratio:.2f} ({low:.2f} to {high:.2f})"


def warm_up(found: WarmUpFigures) -> str:
    """How a side was warmed up."""
    medians = ", ".join("none" if each is None else number(each) for each in found.p50_ms)
    said = {None: "too few events to tell whether it was warm", True: "stationary", False: "not stationary"}
    return f"{found.seconds:g} s, p50 ms by window {medians}: {said[found.stationary]}"


def broker_cells(summary: Summary, name: str) -> list[str]:
    """A figure on each broker, with its lowest and highest round."""
    cells = []
    for one in summary.brokers.values():
        value, (low, high) = getattr(one, name), one.range.get(name, (None, None))
        around = "" if low is None or high is None or low == high else f" ({number(low)} to {number(high)})"
        cells.append("none" if value is None else number(value) + around)
    return cells


def counts(summary: Summary) -> list[tuple[str, list[str]]]:
    """Rows of what became of the events, a cell for each broker."""
    if summary.cut_short:
        return [("all events", ["not checked"] * len(summary.brokers))]
    rows = {name: [getattr(one, name) for one in summary.brokers.values()] for name in COUNTS}
    return [
        (COUNTS[name], [f"{each:,}" for each in found])
        for name, found in rows.items()
        if name not in SHOWN_WHERE_ANY or any(found)
    ]


LIMITER = (
    "Limiter: who had no more to give, having used 0.7 of a core or more, or the most of a machine that was 90 % "
    "busy. None: nobody did, so that what runs as fast as it can (draining, outbox to broker, layers) waits for "
    "its own steps, one after the other; the number is what the busiest used."
)
OF_A_A = (
    "A/A: the steady load a second time on the same broker. It passes where neither of the two would be called "
    "better. An interval without 0 shows that the place within a round matters: hence pairs, whose order turns."
)
_A_A = "A/A"
CONTROL_HEADS = ["control", "planted", "found", "so it"]


def controls(summary: Summary) -> list[list[str]]:
    """A row for each control."""
    return [
        [
            control.name + (f" on {TITLES[control.broker]}" if control.broker else ""),
            control.planted,
            control.found,
            "passed" if control.passed else "FAILED",
        ]
        for control in summary.controls
    ]


def against_itself(summary: Summary) -> str:
    """What the controls A/A are, where a run has them."""
    return OF_A_A if any(control.name == _A_A for control in summary.controls) else ""


def stages(summary: Summary) -> list[list[str]]:
    """A row for each stage of the latency: mean, p50 and p99 on each broker."""
    names = dict.fromkeys(name for one in summary.brokers.values() for name in one.stages)
    rows = []
    for name in names:
        cells = []
        for one in summary.brokers.values():
            found = one.stages.get(name)
            shown = [found.mean_ms, found.p50_ms, found.p99_ms] if found else []
            cells += ["none" if each is None else number(each) for each in shown] or ["none"] * 3
        rows.append([STAGE_TITLES.get(name, name), *cells])
    return rows


def stage_heads(summary: Summary) -> list[str]:
    """The heads of that table."""
    figures = ("mean", "p50", "p99")
    return ["ms", *(f"{TITLES[broker]} {figure}" for broker in summary.brokers for figure in figures)]


def ladder_heads(summary: Summary) -> list[str]:
    """The heads of the ladder's table."""
    figures = ("p50 ms", "p99 ms", "limiter")
    return ["orders/s", *(f"{TITLES[broker]} {figure}" for broker in summary.brokers for figure in figures)]


def ladder(summary: Summary) -> list[list[str]]:
    """A row for each rung; empty where there are none."""
    sides = [one.ladder for one in summary.brokers.values() if one.ladder]
    if len(sides) < len(summary.brokers):
        return []
    rows = []
    for rungs in zip(*(side.rungs for side in sides), strict=False):
        cells: list[str] = []
        for rung in rungs:
            few = f"{rung.samples:,} samples"
            times = [few if each is None else number(each) for each in (rung.p50_ms, rung.p99_ms)]
            cells += [*(times if rung.carried else ["not carried"] * 2), rung.limiter]
        rows.append([f"{rungs[0].orders_per_s:,.1f} ({rungs[0].share:.0%})", *cells])
    return rows


def capacities(summary: Summary) -> list[str]:
    """A sentence for each side that has a ladder."""
    found = []
    for broker, one in summary.brokers.items():
        if one.ladder is None:
            continue
        capacity = one.ladder.capacity_orders_per_s
        carried = "none of the rates tried" if capacity is None else f"{capacity:,.0f} orders/s"
        fit = "; ".join(
            f"{name} {number(line['idle_cores'])} cores and {_per_event(line['cpu_us_per_event'])} per event"
            for name, line in one.ladder.fitted.items()
        )
        said = f"{TITLES[broker]} carried {carried}{_refused(one.ladder)}"
        found.append(f"{said}{f'. CPU by rate: {fit}' if fit else ''}.")
    return found


LADDER = (
    "Each rate was tried once: this shows a shape, and decides nothing. A rate is not carried where requests or "
    "events pile up, whoever is the cause. CPU by rate is a line through the rungs: an event costs more at low "
    "rates, where batches are small, so that the idle cores of a line are more than those measured idle."
)


def _refused(ladder: LadderFigures) -> str:
    """The lowest rate above the capacity that was not carried, why, and what limited the system meanwhile."""
    capacity = ladder.capacity_orders_per_s or 0.0
    above = [each for each in ladder.tries if not each.carried and each.orders_per_s > capacity]
    if not above:
        return ""
    least = min(above, key=lambda each: each.orders_per_s)
    why = f" ({least.why})" if least.why else ""
    limiter = f"; limiter: {least.limiter}" if least.limiter else ""
    machine = f", the whole machine {least.machine_cores:g} cores" if least.machine_cores is not None else ""
    return f", and not {least.orders_per_s:,.0f}{why}{limiter}{machine}"


def _per_event(us: float) -> str:
    """A slope below 0 is one that the clock of CPU time cannot tell from none."""
    return f"{number(us)} µs" if us > 0 else "nothing to be seen"


def recommendation(summary: Summary) -> list[tuple[str, list[str]]]:
    """The recommendation in titled lists of sentences, the answer first; empty where nobody asked for one."""
    found = summary.recommendation
    if found is None:
        return []
    flips = [
        f"{name}: no weight turns the answer"
        if share is None
        else f"{name}: turns it at {share:.0%} of all weight"
        for name, share in found.flips.items()
    ]
    money = [
        f"a million effects, drained, on {TITLES[broker]}: {found.currency} {price:.4f}"
        for broker, price in found.money_per_million.items()
        if price
    ]
    lists = {"Recommendation": [found.verdict], "Why": [*found.why, *money], "What would turn it": flips}
    lists["What it does not know"] = found.unknown
    return [(title, sentences) for title, sentences in lists.items() if sentences]


def changed(summary: Summary) -> tuple[str, list[list[str]]]:
    """A sentence about the other run, and a row for each figure on each broker."""
    found = summary.changes
    if found is None:
        return "", []
    about = f"Since {found.base} ({found.base_started_at})."
    if found.refused:
        return f"{about} Nothing is said about figures: {found.refused}.", []
    rows = [
        [f"{row.title} on {TITLES[broker]}", interval(row), str(row.pairs), row.sentence]
        for broker, figures in found.figures.items()
        for row in figures.values()
    ]
    return f"{about} {CAVEAT}", rows


def _decision(summary: Summary, row: ComparedFigure) -> str:
    one, other = summary.brokers
    said = row.sentence
    for broker in (one, other):
        said = said.replace(broker, f"Tandem on {TITLES[broker]}")
    return f"{row.title}: {said}"
