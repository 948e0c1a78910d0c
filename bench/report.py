"""Compares the contenders' figures as ratios, and writes the table and `summary.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.limits import Limits
from bench.rows import CORE_FREE, IDLE, PER_S, ROWS, UNITS, Contender, Division

Rates = Sequence[dict[Contender, float]]
"""Of each contender, round by round: effects or events published per second, or what `UNITS` says."""

_FEW = 10
"""Of fewer a second hundredths are shown: a chord is a thousand jobs."""
_DISCLAIMER = (
    "Of an idle start per second more is better: it is one over the median latency in seconds.\n"
    "Everything ran on this one machine, servers included: the ratios say how the code compares, the rates say\n"
    "little about yours. One process each if no number is said; Celery two, of the pool that was the fastest.\n"
    "Again: make bench"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. The ratios pair figures of the same round.

    `limit` is the least that their median must be; where `lower_is_better`, the most. The median of our own figure
    must not be over `ours_max`, where that is said. Of a row that wants a core of its own, `cores_idle` says how
    many there were (the median), and `limit_with_core_free` what the limit is, or would be, with a whole one.
    """

    name: str
    broker: str
    ratio_median: float
    ratio_min: float
    ratio_max: float
    limit: float
    lower_is_better: bool
    ours_median: float
    ours_max: float | None
    cores_idle: float | None = None
    limit_with_core_free: float | None = None

    @property
    def verdict(self) -> str:
        if not self.holds:
            return "MISSED"
        if self.limit_with_core_free is None or self._keeps(self.limit_with_core_free):
            return "holds"
        return f"no core free ({self.cores_idle:.1f} idle)"

    @property
    def bound(self) -> str:
        """What must be, in a few words."""
        sign = "≤" if self.lower_is_better else "≥"
        bound = f"{sign} {self.limit:g}"
        if self.ours_max is not None:
            bound += f", ours ≤ {self.ours_max:g}"
        if self.limit_with_core_free not in {None, self.limit}:
            bound += f", with a core free {sign} {self.limit_with_core_free:g}"
        return bound

    @property
    def holds(self) -> bool:
        if self.ours_max is not None and self.ours_median > self.ours_max:
            return False
        return self._keeps(self.limit)

    def _keeps(self, limit: float) -> bool:
        return self.ratio_median <= limit if self.lower_is_better else self.ratio_median >= limit


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
            name = f"{row.ours.name} / {row.theirs.name}"
            ours = median(of_round[row.ours] for of_round in rates if row.ours in of_round)
            limit, cores_idle, limit_with_core_free = _crowding(row, rates)
            limits = (limit, row.lower_is_better, round(ours, 3), row.ours_max, cores_idle, limit_with_core_free)
            rows.append(Row(name, row.broker, middle, low, high, *limits))
    return rows


def _crowding(row: Division, rates: Rates) -> tuple[float, float | None, float | None]:
    """The limit, how many cores were idle, and the limit with a core free: nothing of it where a row has none."""
    if row.crowded_limit is None:
        return row.limit, None, None
    idle = Contender(IDLE, row.broker)
    cores = round(median(of_round[idle] for of_round in rates if idle in of_round), 2)
    return row.limit if cores >= CORE_FREE else row.crowded_limit, cores, row.limit


def print_table(rows: Sequence[Row], rates: Rates, notes: Sequence[str] = ()) -> None:
    """The ratios, the figures behind them, and what else is to be said, on standard output."""
    console = Console(highlight=False)
    table = Table(
        "compared",
        "broker",
        title="ours divided by theirs: rates, where the ratio must be at least (≥) so much, or times, at most (≤)",
        title_justify="left",
    )
    for heading in ("median", "min", "max", "must be", ""):
        table.add_column(heading, justify="right")
    for row in rows:
        numbers = (row.ratio_median, row.ratio_min, row.ratio_max)
        colour = {"holds": "green", "MISSED": "red"}.get(row.verdict, "yellow")
        verdict = f"[{colour}]{row.verdict}[/]"
        table.add_row(row.name, row.broker, *(f"{n:.2f}" for n in numbers), row.bound, verdict)
    if rows:
        console.print(table)
    plain = Table("contender", "broker", "median", "", box=None, title_justify="left")
    for contender, rate in median_rates(rates).items():
        figure = f"{rate:,.2f}" if rate < _FEW else f"{rate:,.0f}"
        plain.add_row(contender.name, contender.broker, figure, UNITS.get(contender.name, PER_S))
    if any(rates):
        console.print(plain)
    for note in (*notes, _DISCLAIMER):
        console.print(note, soft_wrap=True)


def print_limits(limits: Limits) -> None:
    """What the parts take by themselves, on standard output."""
    table = Table("part", "broker", title="microseconds for an event, and of CPU", title_justify="left")
    for heading in ("takes", "Python", "PostgreSQL", "Redis", "the broker"):
        table.add_column(heading, justify="right")
    for (part, broker), taken in limits.items():
        cpu = (taken.python_us, *(taken.server_us[name] for name in ("postgres", "redis", broker)))
        table.add_row(part, broker, *(f"{us:.1f}" for us in (taken.us, *cpu)))
    Console(highlight=False).print(table)


def median_rates(rates: Rates) -> dict[Contender, float]:
    """Of every contender, over the rounds."""
    contenders = sorted(rates[0] if rates else (), key=lambda contender: (contender.broker, contender.name))
    return {contender: median(of_round[contender] for of_round in rates) for contender in contenders}


def write_summary(path: Path, rows: Sequence[Row], rates: Rates, about: dict[str, Any]) -> None:
    """`rows` as every reader expects them, and beside them what they were made from."""
    figures: dict[str, dict[str, float]] = {}
    for contender, figure in median_rates(rates).items():
        figures.setdefault(UNITS.get(contender.name, PER_S), {})[str(contender)] = round(figure, 2)
    document = {
        "rows": [{**asdict(row), "verdict": row.verdict} for row in rows],
        "effects_per_s": figures.pop(PER_S, {}),
        "other_figures": figures,
        **about,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
