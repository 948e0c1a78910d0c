"""Runs the comparison: one instance with both brokers and a set of services on each, rounds in turns, a check."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compare.measured import MeasuredSide, stamps_directory
from compare.phases import run_backlog, run_steady, warm_up
from deploy.native import Runtime
from deploy.topology import BROKERS, BrokerName
from experiment import facts
from experiment.broker_state import topology
from experiment.clock import Clock
from experiment.instance import databases_of, instance, keep_logs, remove_leftovers
from experiment.progress_bar import Phase, ProgressBar
from experiment.schedule import turns
from experiment.side import Side
from experiment.signals import run_until_signal
from experiment.stamping import STAMPED, stamps_environment
from experiment.workload import Workload

SERVERS = "starting the servers"
SERVICES = "starting the services"
USERS = "registering users"
WARM_UP = "warm-up"
STEADY = "steady load"
BACKLOG = "backlog"
CHECK = "checking every event"

_NAME = "compare"


@dataclass(slots=True)
class RunResult:
    """What a run found on each side, and what that depends on."""

    workload: Workload
    started_at: datetime
    sides: dict[BrokerName, MeasuredSide] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    took_s: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether no side lost, doubled or reordered anything, or left it behind."""
        return all(measured.sound for measured in self.sides.values())


def plan(workload: Workload) -> list[Phase]:
    """The phases of the run in their order. Estimates are of a machine with two cores."""
    steady_s = workload.steady.duration_s + workload.steady.follow_up_after_s + 1
    backlog_s = 7 + workload.backlog.events / 2_000
    warm_up_s = workload.warm_up.steady_s + 2 + workload.warm_up.backlog_events / 1_500
    phases = [Phase(SERVERS, 10), Phase(SERVICES, 16)]
    phases += [Phase(USERS, 2 + workload.users / 50, broker) for broker in BROKERS]
    phases += [Phase(WARM_UP, warm_up_s, broker) for broker in BROKERS]
    for number in range(1, workload.rounds + 1):
        order = turns(workload.seed, number)
        phases += [Phase(STEADY, steady_s, broker, number) for broker in order]
        if workload.has_backlog(number):
            phases += [Phase(BACKLOG, backlog_s, broker, number) for broker in reversed(order)]
    return [*phases, *(Phase(CHECK, 2, broker) for broker in BROKERS)]


def run(workload: Workload, run_root: Path) -> RunResult:
    """Run the whole comparison below `run_root`, and leave nothing running and no data behind, however it ends.

    Raises `DeployError` when servers or services do not come up, `StalledError` when the system does not work.
    """
    remove_leftovers(run_root, _NAME)
    outcome = RunResult(workload, datetime.now(UTC))
    began = time.monotonic()
    outcome.hardware = facts.hardware(facts.busy_percent())
    phases = plan(workload)
    with ProgressBar(phases) as progress, instance(run_root, _NAME, progress) as runtime:
        servers, services, *rest = phases
        with progress.phase(servers):
            runtime.start_servers()
        with progress.phase(services):
            start_both_sets(runtime)
        outcome.versions = facts.versions(runtime)
        outcome.settings = facts.settings(runtime)
        run_until_signal(_drive(outcome, runtime, progress, rest))
        if not outcome.sound:
            keep_logs(runtime, run_root, _NAME, progress)
    outcome.took_s = time.monotonic() - began
    return outcome


def start_both_sets(runtime: Runtime) -> None:
    """Start a set of services on each broker, named after it, and wait until all processes are ready."""
    measured = [row.name for row in facts.MEASURED]
    for broker in BROKERS:
        told = {
            **facts.services_environment(),
            **stamps_environment(stamps_directory(runtime.root, broker)),
        }
        runtime.start_services(broker, measured, instance=broker, env_overrides=told, modules=STAMPED, wait=False)
    for broker in BROKERS:
        for name in measured:
            runtime.processes.wait_ready(f"{broker}-{name}")


async def _drive(outcome: RunResult, runtime: Runtime, progress: ProgressBar, phases: list[Phase]) -> None:
    clock = Clock()
    async with AsyncExitStack() as stack:
        for broker in BROKERS:
            databases = await stack.enter_async_context(databases_of(runtime, broker))
            side = Side(broker, runtime, outcome.workload, clock, progress, databases)
            outcome.sides[broker] = MeasuredSide(side)
        for phase in phases:
            assert phase.broker is not None
            with progress.phase(phase):
                await _run_phase(phase, outcome.sides[phase.broker])
        outcome.settings["topology"] = {broker: await topology(broker, runtime) for broker in BROKERS}


async def _run_phase(phase: Phase, measured: MeasuredSide) -> None:
    side = measured.side
    name = f"{phase.kind.split()[0]}-{phase.round_number}"
    if phase.kind == USERS:
        await side.databases.drop_unique_constraint()
        await side.register_users()
    elif phase.kind == WARM_UP:
        await warm_up(measured)
    elif phase.kind == STEADY:
        measured.steady.append(await run_steady(measured, name))
    elif phase.kind == BACKLOG:
        measured.backlogs.append(await run_backlog(measured, name))
    else:
        await side.verify()
