"""A run of faults is reported however early it ended."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from experiment.checker import Verdict
from experiment.workload import load_workload
from faults.catalogue import FAULTS
from faults.command_line import main
from faults.phase import PhaseResult
from faults.report import print_report, write_report
from faults.run import LOAD, RunResult


def test_a_run_whose_first_fault_could_not_be_played_is_reported_with_what_broke_it(tmp_path: Path) -> None:
    result = RunResult(
        load_workload(LOAD), datetime.now(UTC), phases={"rabbit": []}, broken="StalledError: nothing"
    )
    write_report(tmp_path / "report", result, "python -m faults")
    told = json.loads((tmp_path / "report" / "run.json").read_text())
    assert (told["sound"], told["broken"]) == (False, "StalledError: nothing")


def trial(gap_s: float, recovered_s: float | None) -> PhaseResult:
    return PhaseResult(
        FAULTS[0].name, Verdict(acknowledged=100), 3, gap_s, recovered_s, operations=50, errors={"503": 2}
    )


def reported(tmp_path: Path, *trials: PhaseResult) -> tuple[dict[str, object], str]:
    """The figures of the fault that was played so often, and the printed report."""
    result = RunResult(
        load_workload(LOAD), datetime.now(UTC), phases={"rabbit": list(trials)}, committed_s={"rabbit": {}}
    )
    write_report(tmp_path / "report", result, "python -m faults --repeat 3")
    printed = io.StringIO()
    print_report(result, tmp_path, Console(file=printed, highlight=False))
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert set(summary["rabbit"]) == {FAULTS[0].name}
    return summary["rabbit"][FAULTS[0].name], " ".join(printed.getvalue().split())


def test_a_fault_that_was_played_several_times_is_one_row_with_its_spread(tmp_path: Path) -> None:
    figures, printed = reported(tmp_path, trial(6.0, 2.0), trial(9.0, 4.0), trial(7.0, 3.0))
    assert (figures["gap_s"], figures["gap_s_by_trial"]) == (7.0, [6.0, 9.0, 7.0])
    assert (figures["recovered_s"], figures["trials"]) == (3.0, 3)
    assert (figures["acknowledged"], figures["duplicate_deliveries"], figures["errors"]) == (300, 9, {"503": 6})
    assert "300" in printed
    assert "7.0 (6.0" in printed


def test_a_fault_of_which_the_system_did_not_recover_once_has_no_median_of_it(tmp_path: Path) -> None:
    figures, printed = reported(tmp_path, trial(6.0, 2.0), trial(9.0, None))
    assert figures["recovered_s"] is None
    assert "never" in printed
    assert "NOT SOUND" in printed


def test_a_fault_that_was_played_once_has_its_figures_alone(tmp_path: Path) -> None:
    figures, printed = reported(tmp_path, trial(6.0, 2.0))
    assert figures == trial(6.0, 2.0).figures()
    assert "6.0 2.0" in printed.replace("│", "").replace("  ", " ")


@pytest.mark.parametrize("times", ["0", "21", "often"])
def test_how_often_is_a_number(times: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--repeat", times])
    assert stopped.value.code == 2
    assert f"'{times}' is not a number from 1 to 20" in capsys.readouterr().err
