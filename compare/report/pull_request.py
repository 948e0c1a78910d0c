"""Renders `report.md`: the run as a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterable

from compare.document import Summary
from compare.report import layers, scenarios, words
from experiment.facts import TITLES


def render_markdown(summary: Summary) -> str:
    """GitHub's Markdown: the verdict, the figures, the events, and the notes folded away."""
    brokers = [TITLES[broker] for broker in summary.brokers]
    figures = [
        [
            row.title + (" ★" if row.primary else ""),
            *words.broker_cells(summary, name),
            words.interval(row),
            str(row.pairs),
            row.limiter or "not known",
            row.sentence,
        ]
        for name, row in summary.comparison.items()
    ]
    counts = [[title, *cells] for title, cells in words.counts(summary)]
    return "\n".join(
        [
            f"## {words.title(summary)}",
            "",
            f"**{words.verdict(summary)}**",
            "",
            f"{words.soundness(summary)} {summary.disclaimer}",
            "",
            *_table(["figure", *brokers, "ratio (95 % interval)", "n", "limiter", "said"], figures),
            "",
            f"★: named before the run. n: pairs of rounds. {words.LIMITER}",
            "",
            *_recommendation(summary),
            *_changes(summary),
            *_table(["events", *brokers], counts),
            "",
            *([*_table(words.CONTROL_HEADS, words.controls(summary)), ""] if summary.controls else []),
            *_against_itself(summary),
            *_ladder(summary),
            *_scenarios(summary),
            *_layers(summary),
            "<details><summary>What to know before believing this</summary>",
            "",
            *(f"- {_plain(note)}" for note in summary.notes),
            "",
            "</details>",
            "",
            f"{words.load(summary)}. Again: `{summary.command}`",
            "",
        ]
    )


def _ladder(summary: Summary) -> list[str]:
    said, rows = words.capacities(summary), words.ladder(summary)
    table = [*_table(words.ladder_heads(summary), rows), "", words.LADDER, ""] if rows else []
    return [*said, "", *table] if said else []


def _against_itself(summary: Summary) -> list[str]:
    said = words.against_itself(summary)
    return [said, ""] if said else []


def _scenarios(summary: Summary) -> list[str]:
    rows = scenarios.rows(summary)
    return [*_table(scenarios.heads(summary), rows), ""] if rows else []


def _layers(summary: Summary) -> list[str]:
    rows, modes = layers.rows(summary), layers.mode_rows(summary)
    found = [*_table(layers.heads(summary), rows), ""] if rows else []
    found += [layers.caveat(summary), ""] if layers.caveat(summary) else []
    return found + ([*_table(layers.MODE_HEADS, modes), ""] if modes else [])


def _recommendation(summary: Summary) -> list[str]:
    return [f"**{title}.** {_plain('; '.join(said))}\n" for title, said in words.recommendation(summary)]


def _changes(summary: Summary) -> list[str]:
    about, rows = words.changed(summary)
    return [_plain(about), "", *(_table(words.CHANGE_HEADS, rows) if rows else []), ""] if about else []


def _table(heads: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in lines]


def _plain(cell: str) -> str:
    """What neither ends a cell nor begins markup."""
    return cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
