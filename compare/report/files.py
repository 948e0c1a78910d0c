"""Writes the directory of a comparison's report, and renders its pages again from its summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compare.document import Summary
from compare.report.page import render_page
from compare.report.pull_request import render_markdown
from compare.run import RunResult
from experiment.atomic_directory import replace_directory
from experiment.figures import Latencies, write_histogram_log
from experiment.ledger import write_ledger

PAGE, COMMENT = "report.html", "report.md"


def write_report(out: Path, outcome: RunResult, summary: dict[str, Any]) -> None:
    """Replace the directory `out` by this report: it is there whole, or as it was before."""
    with replace_directory(out) as fresh:
        write_summary(fresh, summary)
        write_ledger(
            fresh / "ledger.jsonl.gz",
            {broker: measured.side.entries for broker, measured in outcome.sides.items()},
            {broker: measured.side.committed_s() for broker, measured in outcome.sides.items()},
        )
        write_histogram_log(fresh / "latencies.hlog", _histograms(outcome))


def write_summary(directory: Path, summary: dict[str, Any]) -> None:
    """Write, or replace, the summary in the directory of a report, and its pages."""
    (directory / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    _write_pages(directory, Summary.model_validate(summary))


def render_again(directory: Path, summary: Summary) -> Path:
    """Make the pages of a report again; where the page is."""
    _write_pages(directory, summary)
    return directory / PAGE


def _write_pages(directory: Path, summary: Summary) -> None:
    (directory / PAGE).write_text(render_page(summary))
    (directory / COMMENT).write_text(render_markdown(summary))


def _histograms(outcome: RunResult) -> dict[str, tuple[float, float, Latencies]]:
    return {
        f"{broker}-{result.phase}": (result.load.started_s, result.seconds, result.latencies)
        for broker, measured in outcome.sides.items()
        for result in measured.steady
    }
