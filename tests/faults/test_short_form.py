"""The command as a person runs it, with one fault on each broker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deploy.native.supervision import INSTANCE_VARIABLE, REPOSITORY

pytestmark = pytest.mark.timeout(300)

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
    command = [sys.executable, "-m", "faults", "--only", "consumer-sigkill", "--out", str(out)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        output, progress = running.communicate()
    assert running.returncode == 0, progress + output
    summary = json.loads((out / "summary.json").read_text())
    for broker in ("rabbit", "kafka"):
        figures = summary[broker]["consumer-sigkill"]
        assert set(figures) >= CONTRACT
        assert figures["acknowledged"] > 100
        assert (figures["lost"], figures["duplicate_effects"], figures["stuck"]) == (0, 0, 0)
    assert "kafka · consumer SIGKILL" in progress
    assert "nothing lost, nothing done twice, nothing stuck" in output
    assert (out / "ledger.jsonl.gz").is_file()
    root = str(REPOSITORY / ".run" / f"faults-{running.pid}")
    assert not Path(root).exists()
    assert [process.pid for process in psutil.process_iter() if _belongs(process, root)] == []


def test_an_unknown_fault_is_refused_in_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "faults", "--only", "meteorite"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "meteorite" in done.stderr


def _belongs(process: psutil.Process, root: str) -> bool:
    try:
        return process.environ().get(INSTANCE_VARIABLE) == root
    except (psutil.Error, OSError):
        return False
