"""What a run's charts show: ratios with their intervals, rounds, percentiles, cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import log2

from compare.document import ComparedFigure, Summary
from compare.report import svg, words
from compare.report.scenarios import TITLES_OF_KINDS
from compare.report.svg import WIDTH, Chart
from deploy.topology import BrokerName
from experiment.facts import TITLES

_LEFT, _RIGHT = 58, WIDTH - 12
_ROW = 46
_SPAN_MIN = 1.25
"""The axis of ratios reaches at least so far on both sides."""
COST_PARTS = {"broker": "broker", "services": "services", "postgres": "PostgreSQL", "redis": "Redis"}
_PERCENTILES = {"p50_ms": "p50", "p90_ms": "p90", "p99_ms": "p99", "max_ms": "highest"}
Series = Mapping[BrokerName, Sequence[float | None]]
"""Broker → its values, as many as there are places on the axis."""


def charts(summary: Summary) -> Iterator[Chart]:
    """Those for which the run has figures."""
    compared = {name: row for name, row in summary.comparison.items() if row.interval is not None}
    if compared:
        yield ratios(summary, compared)
    spread = {
        broker: [getattr(row.latency, name) for name in _PERCENTILES]
        for broker, row in summary.brokers.items()
        if row.latency is not None
    }
    if spread:
        title = "Latency by percentile, ms (each step up is a multiple)"
        yield lines(title, list(_PERCENTILES.values()), spread, logarithmic=True)
    for name, row in summary.comparison.items():
        series = {broker: one.by_round.get(name, []) for broker, one in summary.brokers.items()}
        rounds = max(len(values) for values in series.values())
        if rounds > 1:
            yield lines(f"{row.title}, by round", [str(each + 1) for each in range(rounds)], series)
    climbs = {broker: one.ladder.rungs for broker, one in summary.brokers.items() if one.ladder}
    if climbs and all(climbs.values()):
        places = [f"{rung.share:.0%}" for rung in next(iter(climbs.values()))]
        medians = {broker: [rung.p50_ms for rung in rungs] for broker, rungs in climbs.items()}
        yield lines("p50 ms at shares of the lower capacity", places, medians)
    for kind, title in TITLES_OF_KINDS.items():
        worst = {
            broker: found.worst_ms_by_second
            for broker, one in summary.brokers.items()
            for found in one.scenarios
            if found.kind == kind
        }
        if worst:
            seconds = [str(second) for second in range(max(map(len, worst.values())))]
            yield lines(f"Highest latency of what was due in each second, ms: {title}", seconds, worst)
    stages = {
        broker: [one.stages[name].mean_ms if name in one.stages else None for name in words.STAGES]
        for broker, one in summary.brokers.items()
        if one.stages
    }
    if stages:
        yield bars("Where the mean latency goes, ms", list(words.STAGES.values()), stages)
    costs = {broker: _costs(one.cost) for broker, one in summary.brokers.items()}
    if any(value for values in costs.values() for value in values):
        absent = words.NOT_MEASURED if summary.own_brokers else "none"
        yield bars("CPU seconds for 100,000 effects, while draining", list(COST_PARTS.values()), costs, absent)


def ratios(summary: Summary, compared: Mapping[str, ComparedFigure]) -> Chart:
    """A row for each figure: median and interval of the ratio, the margin as a band, equality as a line."""
    margin = 1 + float(summary.workload.get("margin", 0.1))
    one, other = summary.brokers
    seen = [value for row in compared.values() for value in row.interval or () if value]
    reach = max([_SPAN_MIN, *(max(value, 1 / value) for value in seen)]) * 1.05
    at = svg.logarithmic(1 / reach, reach, 14, WIDTH - 14)
    bottom = 30 + _ROW * len(compared)
    parts = [
        svg.bar(at(1 / margin), 24, at(margin) - at(1 / margin), bottom - 24, "band"),
        svg.line(at(1), 24, at(1), bottom, "axis"),
        svg.text(14, 14, f"◂ {TITLES[one]} has more", kind="muted"),
        svg.text(WIDTH - 14, 14, f"{TITLES[other]} has more ▸", "end", "muted"),
    ]
    told: list[str] = []
    for place, row in enumerate(compared.values()):
        y = 42 + _ROW * place
        assert row.ratio is not None
        assert row.interval is not None
        low, high = row.interval
        said = f"{row.ratio:.2f} ({low:.2f} to {high:.2f})"
        parts += [
            svg.line(at(low), y + 14, at(high), y + 14, "interval"),
            svg.text(14, y, row.title + (" ★" if row.primary else "")),
            svg.text(WIDTH - 14, y, said, "end", "muted"),
            svg.mark(at(row.ratio), y + 14, "median", square=False, radius=5),
        ]
        told.append(f"{row.title}: {said}, {row.verdict}.")
    for value in _ratio_ticks(reach):
        parts.append(svg.text(at(value), bottom + 14, f"{value:g}", "middle", "muted"))
    return Chart(
        f"Ratio of {TITLES[other]} to {TITLES[one]}: median of the pairs, 95 % interval; ★: named beforehand",
        " ".join([*told, f"The band is the margin, {1 / margin:.2f} to {margin:.2f}."]),
        bottom + 20,
        parts,
    )


def lines(title: str, places: Sequence[str], series: Series, *, logarithmic: bool = False) -> Chart:
    """A line of marks for each broker; the scale starts at 0 unless it is logarithmic."""
    values = [
        value for row in series.values() for value in row if value is not None and (value > 0 or not logarithmic)
    ]
    if not values:
        return Chart(title, "There is no figure.", 24, [svg.text(12, 16, "no figure")])
    marks = svg.decades(min(values), max(values)) if logarithmic else svg.ticks(max(values))
    scale = svg.logarithmic if logarithmic else svg.linear
    up = scale(marks[0], marks[-1], 172, 34)
    along = svg.linear(0, max(len(places) - 1, 1), _LEFT + 14, _RIGHT - 20)
    parts = [svg.line(_LEFT, up(value), _RIGHT, up(value), "grid") for value in marks]
    parts += [svg.text(_LEFT - 6, up(value) + 4, svg.number(value), "end", "muted") for value in marks]
    parts += [svg.text(along(place), 190, word, "middle", "muted") for place, word in enumerate(places)]
    told = []
    for which, (broker, row) in enumerate(series.items()):
        points = [(along(place), up(value)) for place, value in enumerate(row) if value is not None and value > 0]
        parts.append(svg.path(points, f"{broker} way{which}"))
        parts += [svg.mark(x, y, broker, square=bool(which)) for x, y in points]
        x = _LEFT + 120 * which
        parts += [svg.mark(x + 6, 12, broker, square=bool(which)), svg.text(x + 16, 16, TITLES[broker])]
        said = ", ".join(
            f"{word} {'none' if value is None else svg.number(value)}"
            for word, value in zip(places, row, strict=False)
        )
        told.append(f"{TITLES[broker]}: {said}.")
    return Chart(title, " ".join(told), 198, parts)


def bars(title: str, places: Sequence[str], series: Series, absent: str = "none") -> Chart:
    """A bar for each broker at each place, with its number at its end; `absent` stands where there is none."""
    highest = max(value for row in series.values() for value in row if value is not None)
    along = svg.linear(0, highest or 1, 84, WIDTH - 112)
    parts, told, y = [], [], 8.0
    for place, word in enumerate(places):
        parts.append(svg.text(78, y + 19, word, "end"))
        for which, (broker, row) in enumerate(series.items()):
            value = row[place]
            said = absent if value is None else svg.number(value)
            end = along(value or 0)
            parts.append(svg.bar(84, y, end - 84, 12, f"{broker} bar{which}"))
            parts.append(svg.text(end + 6, y + 10, f"{said} {TITLES[broker]}", kind="muted"))
            told.append(f"{word} on {TITLES[broker]}: {said}.")
            y += 15
        y += 10
    return Chart(title, " ".join(told), y, parts)


def _costs(cost: Mapping[str, float | None]) -> list[float | None]:
    return [cost.get(f"{part}_cpu_s_per_100k_effects") for part in COST_PARTS]


def _ratio_ticks(reach: float) -> list[float]:
    if reach < 2:
        return [0.8, 1, 1.25]
    step = max(1, round(log2(reach) / 2))
    powers = range(-8 * step, 8 * step + 1, step)
    return [2.0**power for power in powers if 1 / reach <= 2.0**power <= reach]
