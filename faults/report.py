"""Writes the directory of a report (`summary.json`, `run.json` and the ledger) and prints its table."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiment.atomic_directory import replace_directory
from experiment.checker import Verdict
from experiment.facts import TITLES
from experiment.ledger import write_ledger
from faults.beside import Findings, Kind
from faults.catalogue import fault_named
from faults.kinds import KINDS
from faults.run import RunResult
from faults.trials import by_fault, figures_of, gap, recovery

_PIPE_WIDTH = 132
_EXAMPLES_MAX = 5
_COLUMNS = (
    "acknow-\nledged",
    "lost",
    "twice\ndone",
    "stuck",
    "re-\nordered",
    "dupl.\ndeliv.",
    "unansw.,\nyet done",
    "gap\ns",
    "recov-\nered s",
)
DEFINITIONS = {
    "lost": "acknowledged, or committed without the client's hearing of it; no effect, and nowhere on the way",
    "duplicate_deliveries": "deliveries that the consumers' own metrics call duplicate: seen, and without effect",
    "duplicate_effects": "effects of an event after its first",
    "reordered": "effects recorded after one of the same key with a higher sequence",
    "stuck": "as lost, but still in the outbox or the queue: no effect within the time",
    "dead_lettered": "among the dead letters that say that an event failed, with or without an effect",
    "stale": "acknowledged changes of users that have not come to the order service",
    "indeterminate_recovered": "the client never heard of success, and yet there is an effect: allowed",
    "…_by_trial": "where a fault was played more than once; its other figures are sums of the trials, gap_s and "
    "recovered_s their medians",
    "gap_s": "longest time without a committed effect around the fault, beyond the longest before it",
    "recovered_s": "from the end of the fault (a kill: at once) to the last request that failed, or the last "
    "effect that came more than 1 s after its acknowledgement; null, and not sound, when a service acknowledged "
    "nothing any more, though it was asked for a minute more",
    **{kind.name: kind.definition for kind in KINDS},
}


def summarise(result: RunResult) -> dict[str, Any]:
    """The figures by broker and fault: summary.json."""
    return {
        broker: {fault: figures_of(trials) for fault, trials in by_fault(phases).items()}
        for broker, phases in result.phases.items()
    }


def circumstances(result: RunResult, command: str) -> dict[str, Any]:
    """What the figures mean and depend on: run.json."""
    return {
        "sound": result.sound,
        "broken": result.broken,
        "started_at": result.started_at.isoformat(),
        "took_s": round(result.took_s, 1),
        "command": command,
        "load": result.workload.steady.model_dump(mode="json"),
        "versions": result.versions,
        "hardware": result.hardware,
        "afterwards": [{"broker": broker, **verdict.counts()} for broker, verdict in result.afterwards],
        "beside_afterwards": [
            {"broker": broker, "kind": kind.name, **found.counts()}
            for broker, kind, found in result.beside_afterwards
        ],
        "definitions": DEFINITIONS,
        "faults": {
            phase.fault: fault_named(phase.fault).title for part in result.phases.values() for phase in part
        },
    }


def write_report(out: Path, result: RunResult, command: str) -> None:
    """Replace the directory `out` by this report: it is there whole, or as it was before."""
    documents = {"summary.json": summarise(result), "run.json": circumstances(result, command)}
    with replace_directory(out) as fresh:
        for name, document in documents.items():
            (fresh / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        write_ledger(fresh / "ledger.jsonl.gz", result.entries, result.committed_s)


def print_report(result: RunResult, out: Path, console: Console | None = None) -> None:
    """The table on standard output, then examples of what is wrong."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(_table(result))
    for kind in {kind: None for _, kind, _ in result.beside_afterwards}:
        console.print(_beside_table(kind, result))
    for broker, phases in result.phases.items():
        for phase in phases:
            _print_examples(console, f"{broker} {phase.fault}", phase.verdict)
            for name, beside in phase.beside.items():
                _print_damage(console, f"{broker} {phase.fault} {name}", beside)
            if phase.error_responses and not phase.error_responses_allowed:
                console.print(f"[red]{broker} {phase.fault} error responses:[/red] {phase.error_responses}")
    for broker, found in result.afterwards:
        _print_examples(console, f"{broker} after the last fault", found)
    for broker, kind, beside in result.beside_afterwards:
        _print_damage(console, f"{broker} after the last fault {kind.name}", beside)
    if result.broken:
        console.print(f"[red]ended early:[/red] {result.broken}", soft_wrap=True)
    console.print(f"Figures: {out / 'summary.json'}   Definitions, load, versions: {out / 'run.json'}")
    console.print(f"Every event: {out / 'ledger.jsonl.gz'}")
    verdict = "nothing lost, nothing done twice, nothing stuck" if result.sound else "NOT SOUND"
    console.print(f"{verdict} ({result.took_s:.0f} s)")


def _print_examples(console: Console, where: str, verdict: Verdict) -> None:
    for kind in ("lost", "stuck", "dead_lettered", "stale", "duplicate_effects", "reordered", "unexpected"):
        rows = getattr(verdict, kind)[:_EXAMPLES_MAX]
        if rows:
            examples = ", ".join(f"{row.event_type} {row.key} {row.sequence}" for row in rows)
            console.print(f"[red]{where} {kind}:[/red] {examples}", soft_wrap=True)


def _print_damage(console: Console, where: str, findings: Findings) -> None:
    for kind, found in findings.damage().items():
        if found:
            console.print(f"[red]{where} {kind}:[/red] {', '.join(found[:_EXAMPLES_MAX])}", soft_wrap=True)


def _beside_table(kind: Kind, result: RunResult) -> Table:
    table = Table(title=f"{kind.title} beside them", title_justify="left")
    for column in ("broker", "fault"):
        table.add_column(column, no_wrap=True)
    for column in (*(name.replace("_", "\n") for name in kind.figures), *kind.columns):
        table.add_column(column, justify="right")
    for broker, phases in result.phases.items():
        for fault, trials in by_fault(phases).items():
            counts = sum((Counter(trial.beside[kind.name].counts()) for trial in trials), Counter[str]())
            table.add_row(
                TITLES[broker],
                fault_named(fault).title,
                *(f"{counts[name]:,}" for name in kind.figures),
                *(_bad(sum(counts[name] for name in names)) for names in kind.columns.values()),
            )
        table.add_section()
    return table


def _table(result: RunResult) -> Table:
    steady = result.workload.steady
    table = Table(title=f"Faults under {steady.events_per_s:g} events/s", title_justify="left")
    for column in ("broker", "fault"):
        table.add_column(column, no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for broker, phases in result.phases.items():
        for fault, trials in by_fault(phases).items():
            counts = sum((Counter(trial.verdict.counts()) for trial in trials), Counter[str]())
            table.add_row(
                TITLES[broker],
                fault_named(fault).title,
                f"{counts['acknowledged']:,}",
                *(_bad(counts[name]) for name in ("lost", "duplicate_effects", "stuck", "reordered")),
                f"{sum(trial.duplicate_deliveries for trial in trials):,}",
                f"{counts['indeterminate_recovered']:,}",
                gap(trials),
                recovery(trials),
            )
        table.add_section()
    return table


def _bad(count: int) -> str:
    return f"[red]{count:,}[/red]" if count else "0"
