"""The harness within its container: `python -m compare.containers.inside` runs the errand that was put there."""

from __future__ import annotations

import sys

from compare.containers.errand import ERRAND, REPORT, Errand
from compare.ending import code_of, unless_it_fails
from compare.report import write_report
from compare.run import run
from compare.summary import summarise
from deploy.paths import REPOSITORY
from experiment.logs import log_errors_alone
from experiment.signals import raise_on_first_signal


def main() -> int:
    """Run it, leave the report, if there is one, and return the exit code."""
    log_errors_alone()
    raise_on_first_signal()
    return unless_it_fails(_run)


def _run() -> int:
    errand = Errand.model_validate_json(ERRAND.read_bytes())
    outcome = run(errand.workload, REPOSITORY / ".run", contained=errand.contained)
    outcome.versions["tandem"] = errand.revision
    summary = summarise(outcome, errand.command)
    write_report(REPORT, outcome, summary)
    return code_of(outcome, summary)


if __name__ == "__main__":
    sys.exit(main())
