"""A run of faults is reported however early it ended."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from experiment.workload import load_workload
from faults.report import write_report
from faults.run import LOAD, RunResult


def test_a_run_whose_first_fault_could_not_be_played_is_reported_with_what_broke_it(tmp_path: Path) -> None:
    result = RunResult(
        load_workload(LOAD), datetime.now(UTC), phases={"rabbit": []}, broken="StalledError: nothing"
    )
    write_report(tmp_path / "report", result, "python -m faults")
    told = json.loads((tmp_path / "report" / "run.json").read_text())
    assert (told["sound"], told["broken"]) == (False, "StalledError: nothing")
