"""Compares the contenders' rates as ratios, and writes the table and `summary.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.rows import ROWS, Contender
from bench.running import CELERY_WORKERS

Rates = Sequence[dict[Contender, float]]
"""Of each contender, round by round: effects per second, or events published."""

_FEW = 10
"""Of fewer a second hundredths are shown: a chord is a thousand jobs."""
_DISCLAIMER = (
    "Everything ran on this one machine, servers included: the ratios say how the code compares, the rates say\n"
    f"little about yours. One process each, Celery {CELERY_WORKERS} workers; Celery always on RabbitMQ.\n"
    "Again: make bench"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. The ratios pair rates of the same round."""

    name: str
    broker: str
    ratio_median: float
    ratio_min: float
    ratio_max: float
    floor: float

    @property
    def holds(self) -> bool:
        return self.ratio_median >= self.floor


def compare(rates: Rates) -> list[Row]:
    """A row for each division whose contenders were both run."""
    rows: list[Row] = []
    for row in ROWS:
        ratios = [
            of_round[row.ours] / of_round[row.theirs]
            for of_round in rates
            if {row.ours, row.theirs} <= of_round.keys()
        ]
        if ratios:
            low, middle, high = (round(value, 3) for value in (min(ratios), median(ratios), max(ratios)))
            rows.append(Row(f"{row.ours.name} / {row.theirs.name}", row.broker, middle, low, high, row.floor))
    return rows


def print_table(rows: Sequence[Row], rates: Rates) -> None:
    """The ratios, then the rates behind them, on standard output."""
    console = Console(highlight=False)
    table = Table(
        "compared",
        "broker",
        title="effects, transfers, jobs, chords or events published per second, as ratios",
        title_justify="left",
    )
    for heading in ("median", "min", "max", "floor", ""):
        table.add_column(heading, justify="right")
    for row in rows:
        numbers = (row.ratio_median, row.ratio_min, row.ratio_max)
        verdict = "[green]holds[/]" if row.holds else "[red]MISSED[/]"
        table.add_row(row.name, row.broker, *(f"{n:.2f}" for n in numbers), f"{row.floor:g}", verdict)
    console.print(table)
    plain = Table("contender", "broker", box=None, title="median per second", title_justify="left")
    for contender, rate in median_rates(rates).items():
        plain.add_row(contender.name, contender.broker, f"{rate:,.2f}" if rate < _FEW else f"{rate:,.0f}")
    console.print(plain)
    console.print(_DISCLAIMER, soft_wrap=True)


def median_rates(rates: Rates) -> dict[Contender, float]:
    """Of every contender, over the rounds."""
    contenders = sorted(rates[0], key=lambda contender: (contender.broker, contender.name))
    return {contender: median(of_round[contender] for of_round in rates) for contender in contenders}


def write_summary(path: Path, rows: Sequence[Row], rates: Rates, about: dict[str, Any]) -> None:
    """`rows` as every reader expects them, and beside them what they were made from."""
    document = {
        "rows": [asdict(row) for row in rows],
        "effects_per_s": {str(contender): round(rate, 2) for contender, rate in median_rates(rates).items()},
        **about,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
