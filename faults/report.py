"""Writes `summary.json`, `run.json` and the ledger, and prints the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from compare.ledger import write_ledger
from compare.replacement import replaced
from faults.catalogue import fault_named
from faults.run import RunResult

_TITLES = {"rabbit": "RabbitMQ", "kafka": "Kafka"}
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
    "lost": "acknowledged, no effect, and nowhere on the way",
    "duplicate_deliveries": "deliveries that the consumers' own metrics call duplicate: seen, and without effect",
    "duplicate_effects": "effects of an event after its first",
    "reordered": "effects recorded after one of the same key with a higher sequence",
    "stuck": "acknowledged, no effect within the time, still in the outbox or the queue",
    "indeterminate_recovered": "the client never heard of success, and yet there is an effect: allowed",
    "gap_s": "longest time without a committed effect around the fault, beyond the longest before it",
    "recovered_s": "from the end of the fault (a kill: at once) to the last request that failed, or the last "
    "effect that came more than 1 s after its acknowledgement",
}


def summarise(result: RunResult) -> dict[str, Any]:
    """Broker → fault → figures, and nothing else."""
    return {broker: {phase.fault: phase.figures() for phase in phases} for broker, phases in result.phases.items()}


def circumstances(result: RunResult, command: str) -> dict[str, Any]:
    """What the figures mean and depend on."""
    return {
        "sound": result.sound,
        "broken": result.broken,
        "started_at": result.started_at.isoformat(),
        "took_s": round(result.took_s, 1),
        "command": command,
        "load": result.workload.steady.model_dump(mode="json"),
        "versions": result.versions,
        "hardware": result.hardware,
        "definitions": DEFINITIONS,
        "faults": {
            phase.fault: fault_named(phase.fault).title for part in result.phases.values() for phase in part
        },
    }


def write_report(out: Path, result: RunResult, command: str) -> None:
    """Replace the directory `out` by this report: it is there whole, or as it was before."""
    documents = {"summary.json": summarise(result), "run.json": circumstances(result, command)}
    with replaced(out) as fresh:
        for name, document in documents.items():
            (fresh / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        write_ledger(fresh / "ledger.jsonl.gz", result.entries, result.committed_s)


def print_report(result: RunResult, out: Path, console: Console | None = None) -> None:
    """The table on standard output, then examples of what is wrong."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(_table(result))
    for broker, phases in result.phases.items():
        for phase in phases:
            for kind in ("lost", "stuck", "dead_lettered", "duplicate_effects", "reordered", "unexpected"):
                rows = getattr(phase.verdict, kind)[:_EXAMPLES_MAX]
                if rows:
                    examples = ", ".join(f"{row.event_type} {row.key} {row.sequence}" for row in rows)
                    console.print(f"[red]{broker} {phase.fault} {kind}:[/red] {examples}", soft_wrap=True)
    if result.broken:
        console.print(f"[red]ended early:[/red] {result.broken}", soft_wrap=True)
    console.print(f"Figures: {out / 'summary.json'}   Definitions, load, versions: {out / 'run.json'}")
    console.print(f"Every event: {out / 'ledger.jsonl.gz'}")
    verdict = "nothing lost, nothing done twice, nothing stuck" if result.sound else "NOT SOUND"
    console.print(f"{verdict} ({result.took_s:.0f} s)")


def _table(result: RunResult) -> Table:
    steady = result.workload.steady
    table = Table(title=f"Faults under {steady.events_per_s:g} events/s", title_justify="left")
    for column in ("broker", "fault"):
        table.add_column(column, no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for broker, phases in result.phases.items():
        for phase in phases:
            counts = phase.verdict.counts()
            table.add_row(
                _TITLES[broker],
                fault_named(phase.fault).title,
                f"{counts['acknowledged']:,}",
                *(_bad(counts[name]) for name in ("lost", "duplicate_effects", "stuck", "reordered")),
                f"{phase.duplicate_deliveries:,}",
                f"{counts['indeterminate_recovered']:,}",
                f"{phase.gap_s:.1f}",
                "never" if phase.recovered_s is None else f"{phase.recovered_s:.1f}",
            )
        table.add_section()
    return table


def _bad(count: int) -> str:
    return f"[red]{count:,}[/red]" if count else "0"
