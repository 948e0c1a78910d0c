"""The side that is not measured stands still, and whatever happens nothing is left standing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from compare import freezing, run
from compare.command_line import DEFAULT_WORKLOAD
from compare.cost import costs
from compare.freezing import Freezer
from compare.measured import MeasuredSide
from compare.summary import summarise
from deploy.native import Ports
from deploy.topology import BROKERS, BrokerName
from experiment.workload import load_workload
from tests.compare.test_judgement import APART, run_result


@dataclass
class Sleeping:
    """Stands for an instance: its processes are real ones, which sleep."""

    by_name: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def kill(self, name: str, number: signal.Signals) -> None:
        os.kill(self.by_name[name].pid, number)

    def stopped(self, expected: set[str]) -> bool:
        """Whether these stand still, and no others; a signal takes its time."""
        deadline = time.monotonic() + 5
        while self._stopped() != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._stopped() == expected

    def _stopped(self) -> set[str]:
        return {
            name
            for name, process in self.by_name.items()
            if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
        }


@pytest.fixture
def sleeping() -> Iterator[Sleeping]:
    made = Sleeping()
    for broker in BROKERS:
        for name in (broker, f"{broker}-order", f"{broker}-notification-consumer"):
            made.by_name[name] = subprocess.Popen(["sleep", "60"])
    yield made
    for process in made.by_name.values():
        process.kill()
        process.wait()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[BrokerName]:
    """Which sides got a load that is thrown away."""
    sides: list[BrokerName] = []

    async def measure(measured: Any, _phase: str, _steady: None, _duration_s: float) -> None:
        sides.append(measured.side.broker)

    monkeypatch.setattr(freezing, "measure_steady", measure)
    return sides


@pytest.fixture
async def freezer(sleeping: Sleeping) -> AsyncIterator[Freezer]:
    sets = {
        broker: SimpleNamespace(
            processes=[SimpleNamespace(name=name) for name in sleeping.by_name if name.startswith(f"{broker}-")]
        )
        for broker in BROKERS
    }
    runtime = SimpleNamespace(processes=sleeping, sets=sets, site=SimpleNamespace(ports=Ports(25_000)))
    sides: dict[BrokerName, Any] = {
        broker: SimpleNamespace(side=SimpleNamespace(broker=broker, runtime=runtime), can_be_frozen=True)
        for broker in BROKERS
    }
    async with Freezer(cast("dict[BrokerName, MeasuredSide]", sides)) as made:
        yield made


KAFKA = {"kafka", "kafka-order", "kafka-notification-consumer"}
RABBIT = {"rabbit", "rabbit-order", "rabbit-notification-consumer"}


async def test_one_side_stands_still_and_is_loaded_once_when_it_wakes_up(
    freezer: Freezer, sleeping: Sleeping, loaded: list[BrokerName]
) -> None:
    await freezer.leave(["rabbit"])
    assert sleeping.stopped(KAFKA)
    assert loaded == []
    await freezer.leave(["rabbit"])
    await freezer.leave(["kafka"])
    assert sleeping.stopped(RABBIT)
    assert loaded == ["kafka"]
    await freezer.leave(BROKERS)
    await freezer.leave(BROKERS)
    assert sleeping.stopped(set())
    assert loaded == ["kafka", "rabbit"]


async def test_a_side_whose_broker_is_elsewhere_goes_on(sleeping: Sleeping, loaded: list[BrokerName]) -> None:
    elsewhere: Any = SimpleNamespace(can_be_frozen=False)
    async with Freezer({"rabbit": elsewhere, "kafka": elsewhere}) as freezer:
        await freezer.leave(["rabbit"])
        await freezer.leave(BROKERS)
    assert sleeping.stopped(set())
    assert loaded == []


async def test_nothing_is_left_standing_when_a_run_ends_early(freezer: Freezer, sleeping: Sleeping) -> None:
    await freezer.leave(["rabbit"])
    await freezer.__aexit__(RuntimeError, RuntimeError("a phase failed"), None)
    assert sleeping.stopped(set())


def test_it_is_said_which_side_was_not_frozen(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    result.workload = result.workload.model_copy(update={"freeze": True})
    for measured in result.sides.values():
        measured.side.runtime = cast(Any, SimpleNamespace(root=tmp_path, servers=("postgres", "rabbit")))
    said = [note for note in summarise(result, "make compare")["notes"] if "not frozen" in note]
    assert [note.split(":")[0] for note in said] == ["kafka"]


def test_only_what_is_measured_by_itself_has_the_other_side_frozen() -> None:
    workload = load_workload(DEFAULT_WORKLOAD)
    assert run.IDLE not in [phase.kind for phase in run.plan(workload)]
    frozen = run.plan(workload.model_copy(update={"freeze": True}))
    kinds = [phase.kind for phase in frozen]
    assert kinds.index(run.WARM_UP) < kinds.index(run.IDLE) < kinds.index(run.STEADY)
    assert not run.ALONE & {run.USERS, run.WARM_UP, run.IDLE, run.CHECK, run.SECOND_LOOK, run.PLANTED, run.LAYERS}


def test_what_is_burnt_idle_is_that_of_the_idle_phase_where_there_was_one(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    assert costs(result.sides)["kafka"]["broker_idle_cores"] == 0  # nothing, while the other side worked
    for broker, measured in result.sides.items():
        measured.idle = ({broker: 0.4, f"{broker}_services": 0.2}, 10.0)
    found = costs(result.sides)["kafka"]
    assert (found["broker_idle_cores"], found["services_idle_cores"]) == (0.04, 0.02)
