"""What stays in one worker when the suite runs in several."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import scheduling
from tests.scheduling import ONE_BY_ONE, gives_way, rank, unit_of, workers

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_system_on_one_broker_is_one_unit_whatever_the_file() -> None:
    units = {
        unit_of(f"tests/system/{file}::test_it[{parameters}]")
        for file in ("test_mail.py", "test_killed_processes.py")
        for parameters in ("kafka", "kafka-claimed-False")
    }
    assert len(units) == 1
    assert unit_of("tests/system/test_mail.py::test_it[rabbit]") not in units


def test_a_module_is_one_unit_unless_its_tests_are_given_out_one_by_one() -> None:
    first, second = "tests/unit/test_a.py::test_it[a::b]", "tests/unit/test_a.py::test_that"
    assert unit_of(first) == unit_of(second) == "tests/unit/test_a.py"
    first, second = f"{ONE_BY_ONE[0]}::test_it", f"{ONE_BY_ONE[0]}::test_that"
    assert unit_of(first) != unit_of(second)


def test_what_needs_the_object_storage_is_one_unit() -> None:
    integration = REPOSITORY / "tests" / "integration"
    needing = {path for path in integration.glob("test_*.py") if "object_storage" in path.read_text()}
    assert needing == {REPOSITORY / module for module in scheduling.OBJECTS}
    assert len({unit_of(f"{module}::test_it") for module in scheduling.OBJECTS}) == 1


def test_what_takes_longest_is_given_out_first_and_what_takes_no_time_last() -> None:
    ids = ["tests/unit/test_a.py::a", "tests/integration/test_a.py::a", "tests/system/test_a.py::a[rabbit]"]
    assert sorted(ids, key=rank) == ids[::-1]


def test_beside_what_judges_how_soon_a_system_recovers_runs_only_what_gives_way() -> None:
    [judge] = scheduling.NEEDS_ROOM
    module, _, name = judge.partition("::")
    assert f"def {name}" in (REPOSITORY / module).read_text()
    for later in scheduling.GIVES_WAY_LAST:
        assert rank(judge) < rank(f"{later}/test_a.py::a")
        assert gives_way(f"{later}/test_a.py::a")
    assert not gives_way(judge)
    for earlier in (f"{module}::test_another", "tests/integration/test_a.py::a"):
        assert rank(earlier) < rank(judge)
    assert unit_of(judge) != unit_of(f"{module}::test_another")


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process has nobody to give way to")
def test_what_gives_way_runs_with_less_priority_and_what_it_starts_too() -> None:
    assert os.getpriority(os.PRIO_PROCESS, 0) >= scheduling.NICENESS
    told = subprocess.run(["nice"], capture_output=True, text=True, check=True).stdout
    assert int(told) >= scheduling.NICENESS


@pytest.mark.parametrize(
    "name", [*ONE_BY_ONE, *scheduling.LONGEST_FIRST, *scheduling.NEEDS_ROOM, *scheduling.GIVES_WAY_LAST]
)
def test_what_the_schedule_names_exists(name: str) -> None:
    assert (REPOSITORY / name.partition("::")[0]).exists()


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_what_is_given_out_one_by_one_shares_no_fixture_of_its_module(name: str) -> None:
    assert 'scope="module"' not in (REPOSITORY / name).read_text()


def test_there_is_at_least_one_worker_and_never_more_than_the_limit() -> None:
    assert 1 <= workers() <= scheduling.WORKERS_MAX
