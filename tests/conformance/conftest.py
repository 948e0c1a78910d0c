"""The capability matrix at the end of the run: what each adapter says of itself and what was checked of it."""

from __future__ import annotations

import pytest

from tests.conformance.report import Report, report_key


def pytest_configure(config: pytest.Config) -> None:
    config.stash[report_key] = Report()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    return request.config.stash[report_key]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash.get(report_key, None)
    if report is None or not report.brokers:
        return
    terminalreporter.section("capability matrix")
    for line in report.lines():
        terminalreporter.line(line)
