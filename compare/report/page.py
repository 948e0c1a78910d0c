"""Renders `report.html`: one file that needs nothing else, for a phone, paper, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from compare.document import Summary, flattened
from compare.report import layers, palette, scenarios, words
from compare.report.charts import COST_PARTS, charts
from compare.report.svg import number
from experiment.facts import TITLES

_HERE = Path(__file__).parent


def render_page(summary: Summary) -> str:
    """The whole page."""
    templates = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = palette.variables() + " ".join((_HERE / "page.css").read_text().split())
    return templates.get_template("page.html").render(
        style=Markup(style),  # noqa: S704 - our own file
        summary=summary,
        titles=TITLES,
        brokers=[TITLES[broker] for broker in summary.brokers],
        words=words,
        layers=layers,
        scenarios=scenarios,
        charts=[
            (chart.title, Markup(chart.render(f"chart{number}")))  # noqa: S704 - escapes what it is given
            for number, chart in enumerate(charts(summary))
        ],
        figures=_figures(summary),
        counts=[(title, *cells) for title, cells in words.counts(summary)],
        costs=list(_costs(summary)),
        rounds=list(_rounds(summary)),
        settings=list(flattened({"workload": summary.workload, **summary.settings})),
        other_circumstances=[
            (row.what, row.before, row.now) for row in (summary.changes.circumstances if summary.changes else [])
        ],
        hardware=list(flattened(summary.hardware)),
    )


def _figures(summary: Summary) -> list[dict[str, Any]]:
    return [
        {
            "row": row,
            "cells": words.broker_cells(summary, name),
            "interval": words.interval(row),
        }
        for name, row in summary.comparison.items()
    ]


def _costs(summary: Summary) -> Iterator[tuple[str, ...]]:
    kinds = {
        f"{part}_cpu_s_per_100k_effects": f"CPU s/100k drained: {title}" for part, title in COST_PARTS.items()
    }
    kinds |= words.COSTS
    for name, title in kinds.items():
        yield title, *(words.cost(summary, broker, name) for broker in summary.brokers)


def _rounds(summary: Summary) -> Iterator[tuple[str, str]]:
    for broker, one in summary.brokers.items():
        if one.warm_up:
            yield f"{TITLES[broker]} warm-up", words.warm_up(one.warm_up)
        for steady in one.steady_rounds:
            found = steady.latency
            said = [f"{name} {number(value)} ms" for name, value in _percentiles(found) if value is not None]
            yield f"{TITLES[broker]} {steady.phase}", f"{found.samples:,} samples: {', '.join(said)}"
        for backlog in one.backlog_rounds:
            rates = (("drained", backlog.effects_per_s), ("relayed", backlog.relay_events_per_s))
            said = [f"{name} {number(value)} per s" for name, value in rates if value is not None]
            said += [f"batches of {number(size)} {name}" for name, size in backlog.events_per_batch.items()]
            yield f"{TITLES[broker]} {backlog.phase}", f"{backlog.events:,} events: {', '.join(said)}"


def _percentiles(found: Any) -> list[tuple[str, float | None]]:
    return [("p50", found.p50_ms), ("p90", found.p90_ms), ("p99", found.p99_ms), ("highest", found.max_ms)]
