"""The benchmark, tiny, so that it cannot rot. Nothing here looks at a time: limits are its own matter."""

from __future__ import annotations

import json
import subprocess
from itertools import product
from pathlib import Path

import pytest

from bench.commands import POOLS
from bench.limits import PARTS
from bench.rows import NAMES, ROWS, START_UP
from deploy.topology import BROKERS
from tests.commands import PYTHON

_REPOSITORY = Path(__file__).resolve().parents[2]

ALIKE = {
    *("backlog", "full-inbox", "traced", "inbox-alone", "batches-of-one"),
    *("hot-account", "jobs-threads", "jobs-relayed", "jobs-waiting"),
}
"""Rows that differ from another in a number or a setting, in the accounts that are drawn, in Celery's pool, in a
relay (which chords have, too), or in what lies beside."""
TIMED = {"receive", "acceptance"}
"""Rows in which one late answer makes a run void: a loaded machine is late, and nobody's fault is found."""
RUN = [name for name in NAMES if name not in {*ALIKE, *TIMED, START_UP}]


@pytest.mark.timeout(900)
def test_every_contender_does_everything_once(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    command = ["-m", "tests.bench_forked", "--rounds", "1", "--events", "2000", "--pool", next(iter(POOLS))]
    rows_run = [argument for name in RUN for argument in ("--row", name)]
    done = subprocess.run(
        [*PYTHON, *command, *rows_run, "--summary", str(summary)],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    # A void run (an effect lost or doubled, a message not settled) writes no summary; a missed limit does.
    assert done.returncode in {0, 1}, done.stderr
    assert summary.exists(), done.stderr
    told = json.loads(summary.read_text())
    assert {(each["part"], each["broker"]) for each in told["limits_us"]} == set(product(PARTS, BROKERS))
    assert all(each["us"] > 0 for each in told["limits_us"])
    rows = told["rows"]
    assert {(row["name"], row["broker"], row["limit_with_core_free"] or row["limit"]) for row in rows} == {
        (f"{row.ours.name} / {row.theirs.name}", row.broker, row.limit) for row in ROWS if row.name in RUN
    }
    assert all(0 < row["ratio_min"] <= row["ratio_median"] <= row["ratio_max"] for row in rows)
    assert "make bench" in done.stdout
