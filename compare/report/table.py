"""Prints a comparison's table, and what one must know to read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from compare.document import Summary
from compare.report import words
from experiment.facts import TITLES

_PIPE_WIDTH = 118


def print_report(summary: dict[str, Any], out: Path, console: Console | None = None) -> None:
    """The table on standard output, then what one must know to read it."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(_table(summary))
    for broker, row in summary["brokers"].items():
        for kind, examples in row["examples"].items():
            console.print(f"[red]{broker} {kind}:[/red] {', '.join(examples)}", soft_wrap=True)
    document = Summary.model_validate(summary)
    for title, sentences in words.recommendation(document):
        console.print(f"{title}: {'; '.join(sentences)}", markup=False)
    about, rows = words.changed(document)
    for line in [about, *(f"  {title}: {said}" for title, _, _, said in rows)] if about else []:
        console.print(line, markup=False)
    for sentence in words.capacities(document):
        console.print(sentence, markup=False)
    heads = words.ladder_heads(document)
    for row in words.ladder(document):
        console.print(
            "  " + ", ".join(f"{head} {cell}" for head, cell in zip(heads, row, strict=True)), markup=False
        )
    for name, _, found, said in words.controls(document):
        console.print(f"control {name} {said}: {found}", markup=False)
    for note in summary["notes"]:
        console.print(f"· {note}", markup=False)
    console.print(f"· {summary['disclaimer']}", markup=False)
    console.print(f"The page: {out / 'report.html'}   For a pull request: {out / 'report.md'}", markup=False)
    console.print(f"Definitions, every setting, versions and rounds: {out / 'summary.json'}", markup=False)
    console.print(f"Every event: {out / 'ledger.jsonl.gz'}   Histograms: {out / 'latencies.hlog'}", markup=False)
    console.print(f"Again: {summary['command']}", markup=False)


def _table(summary: dict[str, Any]) -> Table:
    workload, hardware = summary["workload"], summary["hardware"]
    steady = workload["steady"]
    title = (
        f"Tandem, {workload['name']}: {workload['rounds']} round(s) in turns · "
        f"{steady['orders_per_s']:g} orders/s for {steady['duration_s']:g} s · "
        f"backlog of {workload['backlog']['events']:,} · "
        f"{words.out_of_the_usual(workload, ' · ')}{hardware['cores']} cores"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for broker in summary["brokers"]:
        table.add_column(f"on {TITLES[broker]} {summary['versions'].get(broker, '')}", justify="right")
    table.add_column("difference")
    sides, rows = summary["brokers"].items(), summary["brokers"].values()
    for name, title, show in _FIGURES:
        cells = [_with_range(row, name, show) for row in rows]
        table.add_row(title, *cells, summary["differences"][name])
    table.add_section()
    if summary["cut_short"]:
        table.add_row("all events", *["not checked"] * len(rows))
    for name, title in () if summary["cut_short"] else words.COUNTS.items():
        counts = [row[name] for row in rows]
        if name not in words.SHOWN_WHERE_ANY or any(counts):
            table.add_row(title, *(_count(count, bad=name not in _NOT_BAD) for count in counts))
    table.add_section()
    for name, title in _COSTS:
        table.add_row(title, *(_plain(row["cost"][name], _absent(summary, broker, name)) for broker, row in sides))
    return table


def _with_range(row: dict[str, Any], name: str, show: Callable[[float], str]) -> str:
    if row[name] is None:
        return "none"
    low, high = row["range"][name]
    if low == high:
        return show(row[name])
    return f"{show(row[name])} [dim]({show(low)} to {show(high)})[/dim]"


def _count(count: int, *, bad: bool) -> str:
    return f"[red]{count:,}[/red]" if bad and count else f"{count:,}"


def _per_s(value: float) -> str:
    return f"{value:,.0f}"


def _ms(value: float) -> str:
    return f"{value:,.1f}"


def _plain(value: float | None, absent: str) -> str:
    return absent if value is None else f"{value:,}"


def _absent(summary: dict[str, Any], broker: str, name: str) -> str:
    """What stands in place of a figure that is none."""
    own = broker in summary["settings"].get("own_brokers", {})
    return words.NOT_MEASURED if own and name.startswith("broker_") else "none"


_FIGURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("effects_per_s", "effects/s, draining", _per_s),
    ("relay_events_per_s", "events/s, outbox to broker", _per_s),
    ("p50_ms", "p50 ms, request to effect", _ms),
    ("p99_ms", "p99 ms, request to effect", _ms),
)
_NOT_BAD = frozenset({"acknowledged", "indeterminate_recovered", "duplicate_deliveries", "unstamped"})
_COSTS: tuple[tuple[str, str], ...] = (
    ("broker_cpu_s_per_100k_effects", "CPU s/100k drained: broker"),
    ("services_cpu_s_per_100k_effects", "  … services"),
    ("postgres_cpu_s_per_100k_effects", "  … PostgreSQL"),
    ("broker_memory_mib", "broker memory, MiB"),
)
