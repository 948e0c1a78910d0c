"""The command as a person runs it: a tiny comparison to its end, and one that is interrupted."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from compare.run import CHECK
from deploy.native.supervision import INSTANCE_VARIABLE
from deploy.paths import REPOSITORY
from experiment.instance import remove_leftovers
from tests.commands import PYTHON
from tests.compare.tiny import TINY

pytestmark = pytest.mark.timeout(600)

WORKLOAD = {
    **TINY,
    "payload_bytes": 1_000,
    "consumers": 2,
    "backlog": {**TINY["backlog"], "updates_share": 0.3},
    "scenarios": [
        {"kind": "live-drain", "rounds": 1, "duration_s": 1, "events": 300},
        {"kind": "past-http", "rounds": 1, "duration_s": 1},
        {"kind": "poison", "rounds": 1, "duration_s": 1, "share": 0.2},
        {"kind": "killed-consumer", "rounds": 1, "duration_s": 3},
        {"kind": "request-reply", "rounds": 1, "duration_s": 1, "requests_per_s": 20},
        {"kind": "jobs", "rounds": 1, "duration_s": 1, "jobs_per_s": 4, "steps": 3},
        {"kind": "fan-out", "rounds": 1, "duration_s": 1, "subscribers": 2},
    ],
}
PROCESSES_WITH_A_SERVER = 4
"""Of an instance: supervisord, the watch that ends it with the command, and a server (PostgreSQL has several)."""
CONTRACT = {"effects_per_s", "p50_ms", "p99_ms", "lost", "duplicate_effects", "reordered"}


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(WORKLOAD))
    workload, out = tmp_path / "tiny.yml", tmp_path / "report"
    return [*PYTHON, "-m", "compare", "--workload", str(workload), "--out", str(out)]


def left_running(pid: int) -> list[psutil.Process]:
    """Processes of the instance that the command with this process id started."""
    root = str(REPOSITORY / ".run" / f"compare-{pid}")
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(INSTANCE_VARIABLE) == root:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def until_it_runs_a_server(pid: int) -> None:
    """More than supervisord and the watch that ends it with the command."""
    deadline = time.monotonic() + 60
    while len(left_running(pid)) < PROCESSES_WITH_A_SERVER:
        assert time.monotonic() < deadline, "no server was started"
        time.sleep(0.1)


def runs_kafka(pid: int) -> bool:
    names = []
    for one in left_running(pid):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            names.append(one.name())
    return "java" in names


def end_it_while_it_stops(running: subprocess.Popen[bytes], progress: Path) -> bool:
    """Ask a run for its end when all is checked and its servers are being stopped; False: it was over already."""
    deadline = time.monotonic() + 500
    while running.poll() is None:
        assert time.monotonic() < deadline, "it does not come to its end"
        if CHECK in progress.read_text() and not runs_kafka(running.pid):
            running.terminate()
            return True
        time.sleep(0.5)
    return False


def test_a_tiny_comparison_reports_both_columns_though_it_is_ended_while_it_stops_and_leaves_nothing_behind(
    command: list[str], tmp_path: Path
) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    with (
        out.open("w") as stdout,
        err.open("w") as stderr,
        subprocess.Popen(command, cwd=REPOSITORY, stdout=stdout, stderr=stderr) as running,
    ):
        told = end_it_while_it_stops(running, err)
        assert running.wait() == 0, err.read_text() + out.read_text()
    output, progress = out.read_text(), err.read_text()
    assert told, "it ended before the moment came"
    assert left_running(running.pid) == []
    assert not (REPOSITORY / ".run" / f"compare-{running.pid}").exists()

    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert {"brokers", "workload", "settings", "versions", "hardware", "started_at"} <= set(summary)
    assert set(summary["brokers"]) == {"rabbit", "kafka"}
    for figures in summary["brokers"].values():
        assert set(figures) >= CONTRACT
        assert (figures["lost"], figures["duplicate_effects"], figures["reordered"]) == (0, 0, 0)
        assert figures["p50_ms"] <= figures["p99_ms"]
        assert figures["backlog_rounds"][0]["waiting_at_start"] == TINY["backlog"]["events"]
        drained, _, poisoned, killed, *_ = (row["found"] for row in figures["scenarios"])
        assert drained["drained_s"] > 0
        assert poisoned["dead_letters"] >= 1
        assert killed["silent_s"] > 0
        replied, jobs, fanned = (row["beside"] for row in figures["scenarios"][-3:])
        assert replied["counts"] == {"answered": 20, "timed_out": 0, "refused": 0, "done_unanswered": 0}
        assert jobs["counts"] == {"ended": 4, "steps": 2 * 3 + 2 * 4, "unanswered": 0}
        assert fanned["counts"]["effects"] == 2 * fanned["counts"]["events"] >= 20
        assert all(0 < each["p50_ms"] <= each["max_ms"] for each in (replied, jobs, fanned))
        assert [row["layer"] for row in figures["layers"]] == ["publish", "consume", "pipeline"]
        assert all(row["as_tandem"] for row in figures["layers"])
        published, consumed, piped = (row["messages"] for row in figures["layers"])
        assert (published, piped) == (consumed, 100)
        assert published > 100, "a hundred messages are carried in no time, and so once more"
    assert not any("the layers are not whole" in note for note in summary["notes"])
    assert [(row["name"], row["broker"], row["found"]) for row in summary["controls"] if not row["passed"]] == []
    settings = summary["settings"]
    assert settings["servers"]["rabbit"]["default_pass"] == "***"
    assert settings["runtimes"]["rabbit"]["version"].startswith("Erlang/OTP ")
    assert settings["runtimes"]["kafka"]["version"].startswith("Java ")
    assert settings["runtimes"]["kafka"]["flags"]["MaxHeapSize"].endswith("(command line)")
    assert set(settings["data_directories"]) == {"postgres", "redis", "rabbit", "kafka"}

    with gzip.open(tmp_path / "report" / "ledger.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    assert sum(line["outcome"] == "acknowledged" for line in lines) == sum(
        figures["acknowledged"] for figures in summary["brokers"].values()
    )
    stamped = [line for line in lines if line["durable_s"] is not None]
    assert all(line["durable_s"] >= line["intended_s"] for line in stamped)
    # Who is killed between COMMIT and its stamp has an effect that nobody has stamped.
    assert {line["phase"] for line in lines if line["durable_s"] is None} <= {"killed-consumer-1"}
    past_http = [line for line in lines if line["phase"] == "past-http-1"]
    assert {line["http_status"] for line in past_http} == {None}
    assert {line["type"] for line in past_http} >= {"order.placed", "user.profile_updated"}
    for broker in ("rabbit", "kafka"):
        of_backlog = [line for line in lines if (line["broker"], line["phase"]) == (broker, "backlog-1")]
        assert sum(line["type"] == "user.profile_updated" for line in of_backlog) == 180
    assert "notes of 1,000 bytes" in (tmp_path / "report" / "report.md").read_text()
    assert (tmp_path / "report" / "latencies.hlog").read_text().count("Tag=") == 2

    assert "RabbitMQ" in output
    assert "Kafka" in output
    assert "round 1 · kafka · steady load" in progress


def test_an_interrupted_comparison_leaves_nothing_running(command: list[str], tmp_path: Path) -> None:
    """While its servers start. Under load: the faults' short form, which ends in the same way."""
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        assert any("starting the servers" in line for line in running.stderr), "it ended before the moment came"
        until_it_runs_a_server(running.pid)
        # Impatient people press twice; `timeout` and make both pass a signal on.
        os.kill(running.pid, signal.SIGTERM)
        os.kill(running.pid, signal.SIGTERM)
        time.sleep(0.2)
        os.kill(running.pid, signal.SIGTERM)
        output, progress = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "interrupted" in progress.splitlines()[-1]
    assert output == ""
    assert left_running(running.pid) == []
    assert not (REPOSITORY / ".run" / f"compare-{running.pid}").exists()
    assert not (tmp_path / "report").exists()


def test_a_killed_comparison_leaves_nothing_running(command: list[str]) -> None:
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        assert any(b"starting the servers" in line for line in running.stderr)
        until_it_runs_a_server(running.pid)
        running.kill()
    deadline = time.monotonic() + 60
    while left_running(running.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left_running(running.pid) == []
    remove_leftovers(REPOSITORY / ".run", "compare")
    assert not (REPOSITORY / ".run" / f"compare-{running.pid}").exists(), "the next run tidies up"
