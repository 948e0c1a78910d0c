"""What a killed run left is told from the data of one that runs, also when its process id is given again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.birth import start_ticks
from deploy.native import Runtime
from deploy.progress import Steps
from experiment.instance import belongs_to, instance


def test_data_of_a_process_that_runs_is_its_own_whatever_the_clock_says(tmp_path: Path) -> None:
    (tmp_path / "owner").write_text(str(start_ticks(os.getppid())))
    os.utime(tmp_path, (1_000_000_000, 1_000_000_000))
    assert belongs_to(os.getppid(), tmp_path)


def test_data_that_names_no_owner_yet_is_that_of_the_process_of_its_id(tmp_path: Path) -> None:
    assert belongs_to(os.getppid(), tmp_path)


def test_data_of_an_earlier_process_of_the_same_id_is_left_over(tmp_path: Path) -> None:
    (tmp_path / "owner").write_text("1")
    assert not belongs_to(os.getppid(), tmp_path)


def test_data_of_a_process_that_is_gone_is_left_over(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert not belongs_to(process.pid, tmp_path)


def test_data_under_our_own_id_is_left_over_by_another_before_us(tmp_path: Path) -> None:
    assert not belongs_to(os.getpid(), tmp_path)


def test_data_that_cannot_be_deleted_costs_nobody_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_runtime: Runtime, *, remove: bool) -> None:
        assert remove
        raise OSError("Directory not empty")

    said: list[str] = []
    monkeypatch.setattr(Runtime, "stop", stop)
    monkeypatch.setattr(Steps, "say", lambda _steps, text: said.append(text))
    with instance(tmp_path, "bench", Steps(quiet=True)) as runtime:
        pass
    assert said == [f"{runtime.root} could not be deleted: Directory not empty"]
