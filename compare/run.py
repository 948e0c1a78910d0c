"""The whole run: one instance with both brokers and two sets of services, the rounds in turns, the check."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.native import Runtime
from deploy.topology import BROKERS, BrokerName
from experiment import facts
from experiment.broker_state import topology
from experiment.checker import Verdict
from experiment.clock import Clock
from experiment.instance import databases_of, instance, keep_logs, remove_leftovers
from experiment.progress_bar import Journey, Leg
from experiment.schedule import turns
from experiment.side import Side
from experiment.signals import run_until_signal
from experiment.workload import Workload

STARTING = "starting the servers"
SERVICES_LEG = "starting the services"
USERS = "registering users"
WARM_UP = "warm-up"
STEADY = "steady load"
BACKLOG = "backlog"
CHECK = "checking every event"

_NAME = "compare"


@dataclass(slots=True)
class RunResult:
    """What a run found: the sides with their results, the verdicts, and what they depend on."""

    workload: Workload
    started_at: datetime
    sides: dict[BrokerName, Side] = field(default_factory=dict)
    verdicts: dict[BrokerName, Verdict] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    took_s: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether no side lost or doubled anything, or left it behind."""
        return all(verdict.sound for verdict in self.verdicts.values())


def plan(workload: Workload) -> list[Leg]:
    """The legs of the run in their order. Estimates are of a machine with two cores."""
    steady_s = workload.steady.duration_s + workload.steady.follow_up_after_s + 1
    backlog_s = 7 + workload.backlog.events / 2_000
    warm_up_s = workload.warm_up.steady_s + 2 + workload.warm_up.backlog_events / 1_500
    legs = [Leg(STARTING, 10), Leg(SERVICES_LEG, 16)]
    legs += [Leg(USERS, 2 + workload.users / 50, broker) for broker in BROKERS]
    legs += [Leg(WARM_UP, warm_up_s, broker) for broker in BROKERS]
    for number in range(1, workload.rounds + 1):
        order = turns(workload.seed, number)
        legs += [Leg(STEADY, steady_s, broker, number) for broker in order]
        legs += [Leg(BACKLOG, backlog_s, broker, number) for broker in reversed(order)]
    return [*legs, *(Leg(CHECK, 2, broker) for broker in BROKERS)]


def run(workload: Workload, run_root: Path) -> RunResult:
    """Do it all, below `run_root`, and leave nothing running and no data behind, however it ends.

    Raises `DeployError` when servers or services do not come up, `StalledError` when the system does not work.
    """
    remove_leftovers(run_root, _NAME)
    outcome = RunResult(workload, datetime.now(UTC))
    began = time.monotonic()
    outcome.hardware = facts.hardware(facts.busy_percent())
    legs = plan(workload)
    with Journey(legs) as journey, instance(run_root, _NAME, journey) as runtime:
        servers, services, *rest = legs
        with journey.leg(servers):
            runtime.start_servers()
        with journey.leg(services):
            start_both_sets(runtime)
        outcome.versions = facts.versions(runtime)
        outcome.settings = facts.settings(runtime)
        run_until_signal(_drive(outcome, runtime, journey, rest))
        if not outcome.sound:
            keep_logs(runtime, run_root, _NAME, journey)
    outcome.took_s = time.monotonic() - began
    return outcome


def start_both_sets(runtime: Runtime) -> None:
    """Start a set of services on each broker, named after it, and wait until all processes are ready."""
    measured = [row.name for row in facts.MEASURED]
    for broker in BROKERS:
        settings = facts.services_environment()
        runtime.start_services(broker, measured, instance=broker, env_overrides=settings, wait=False)
    for broker in BROKERS:
        for name in measured:
            runtime.processes.wait_ready(f"{broker}-{name}")


async def _drive(outcome: RunResult, runtime: Runtime, journey: Journey, legs: list[Leg]) -> None:
    clock = Clock()
    async with AsyncExitStack() as stack:
        for broker in BROKERS:
            databases = await stack.enter_async_context(databases_of(runtime, broker))
            outcome.sides[broker] = Side(broker, runtime, outcome.workload, clock, journey, databases)
        for leg in legs:
            assert leg.broker is not None
            with journey.leg(leg):
                await _go(leg, outcome, outcome.sides[leg.broker])
        outcome.settings["topology"] = {broker: await topology(broker, runtime) for broker in BROKERS}


async def _go(leg: Leg, outcome: RunResult, side: Side) -> None:
    phase = f"{leg.kind.split()[0]}-{leg.round_number}"
    if leg.kind == USERS:
        await side.register_users()
    elif leg.kind == WARM_UP:
        await side.warm_up()
    elif leg.kind == STEADY:
        await side.run_steady(phase)
    elif leg.kind == BACKLOG:
        await side.run_backlog(phase)
    else:
        outcome.verdicts[side.broker] = await side.verify()
