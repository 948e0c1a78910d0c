"""The capability matrix at the end of the run: what each adapter says of itself and what was checked of it.

A test's findings travel with its report, from the worker that ran it to the process that prints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conformance.report import Report

CHECKED = "conformance-checked"
CAUGHT = "conformance-caught"

_findings: list[tuple[str, Any]] = []


@dataclass(frozen=True)
class Findings:
    """Of one test."""

    node: pytest.Item

    def checked(self, claim: str, broker: str, result: str, duplicates: int) -> None:
        """A check's result, and the repetitions that it allowed and counted."""
        found = {"claim": claim, "broker": broker, "result": result, "duplicates": duplicates}
        self.node.user_properties.append((CHECKED, found))

    def caught(self, adapter: str, broker: str, result: str) -> None:
        """Whether a check saw that an adapter is broken."""
        self.node.user_properties.append((CAUGHT, {"adapter": adapter, "broker": broker, "result": result}))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect what the tests found, wherever they ran."""
    if report.when == "teardown":
        _findings.extend(found for found in report.user_properties if found[0] in {CHECKED, CAUGHT})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the matrix, if anything was checked."""
    if not _findings:
        return
    terminalreporter.section("capability matrix")
    for line in _report().lines():
        terminalreporter.line(line)


def _report() -> Report:
    # Here, because it brings both adapters, which most runs of a few tests can spare.
    from tests.conformance.report import Report

    report = Report()
    for kind, found in _findings:
        if kind == CHECKED:
            report.note(**found)
        else:
            report.note_caught(**found)
    return report
