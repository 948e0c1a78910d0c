"""The command as a person runs it, with one fault on each broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from deploy.native.supervision import INSTANCE_VARIABLE
from deploy.paths import REPOSITORY
from faults.command_line import main
from tests.commands import PYTHON

pytestmark = pytest.mark.timeout(600)

FAULT = "consumer-after-commit"
CONTRACT = {
    "lost",
    "duplicate_deliveries",
    "duplicate_effects",
    "reordered",
    "stuck",
    "gap_s",
    "recovered_s",
    "indeterminate_recovered",
}


def test_one_fault_on_each_broker_is_reported_sound_and_leaves_nothing_running(tmp_path: Path) -> None:
    out = tmp_path / "report"
    command = [*PYTHON, "-m", "faults", "--only", FAULT, "--without", "jobs", "verdicts", "--out", str(out)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        output, progress = running.communicate()
    assert running.returncode == 0, progress + output
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) == {"rabbit", "kafka"}
    for broker in ("rabbit", "kafka"):
        figures = summary[broker][FAULT]
        assert set(figures) >= CONTRACT
        assert figures["acknowledged"] > 100
        assert (figures["lost"], figures["duplicate_effects"], figures["stuck"]) == (0, 0, 0)
        assert figures["transfers"]["completed"] > 10
        assert not sum(figures["transfers"][name] for name in ("lost", "unended", "wrong", "doubled", "broken"))
        assert figures["distributions"]["received"] > 10
        wrong = ("lost", "unended", "wrong", "doubled", "unequal", "broken")
        assert not sum(figures["distributions"][name] for name in wrong)
        assert figures["duplicate_deliveries"] > 0, "what is committed and not settled is delivered again"
    assert "kafka · consumer SIGKILL" in progress
    assert "nothing lost, nothing done twice, nothing stuck" in output
    assert (out / "ledger.jsonl.gz").is_file()
    assert left_by(running.pid) == []


def test_an_interrupted_run_leaves_nothing_running(tmp_path: Path) -> None:
    out = tmp_path / "report"
    command = [*PYTHON, "-m", "faults", "--only", FAULT, "--broker", "rabbit"]
    with subprocess.Popen(
        [*command, "--without", "jobs", "transfers", "distributions", "verdicts", "--out", str(out)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        assert any("before settling" in line for line in running.stderr), "it ended before the moment came"
        os.kill(running.pid, signal.SIGINT)
        os.kill(running.pid, signal.SIGINT)  # impatient people press twice
        output, progress = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "interrupted by SIGINT" in progress.splitlines()[-1]
    assert output == ""
    assert left_by(running.pid) == []
    assert not out.exists()


def test_an_unknown_fault_is_refused_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "meteorite"])
    assert "meteorite" in capsys.readouterr().err


def test_a_fault_of_jobs_is_not_played_without_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "worker-sigkill", "--without", "jobs"]) == 2
    assert capsys.readouterr().err == "faults: a fault of jobs cannot be played without them\n"


def left_by(pid: int) -> list[object]:
    """The data and the processes of the instance that the command with this process id started."""
    root = REPOSITORY / ".run" / f"faults-{pid}"
    processes = [process for process in psutil.process_iter() if _belongs(process, str(root))]
    return [*processes, *root.parent.glob(root.name)]


def _belongs(process: psutil.Process, root: str) -> bool:
    try:
        return process.environ().get(INSTANCE_VARIABLE) == root
    except (psutil.Error, OSError):
        return False
