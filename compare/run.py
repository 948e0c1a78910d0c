"""The whole run: one instance with both brokers and two sets of services, the rounds in turns, the check."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from compare import facts
from compare.broker_state import topology
from compare.checker import Verdict
from compare.clock import Clock
from compare.effects import Databases
from compare.interruption import run_until_signal
from compare.journey import Journey, Leg
from compare.schedule import turns
from compare.side import Side
from compare.workload import Workload
from deploy.native import Ports, Runtime
from deploy.native.site import read_state
from deploy.topology import BROKERS, SERVICES, BrokerName, ServerName

STARTING = "starting the servers"
SERVICES_LEG = "starting the services"
USERS = "registering users"
WARM_UP = "warm-up"
STEADY = "steady load"
BACKLOG = "backlog"
CHECK = "checking every event"

_NAME = "compare"
_CLOCK_SLACK_S = 5.0
"""The start of a process is known to the second, and the clock may have been set since."""


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
            runtime.wait_ready(f"{broker}-{name}")


def databases_of(runtime: Runtime, broker: BrokerName) -> Databases:
    return Databases({service: runtime.dsn(runtime.sets[broker].database(service)) for service in SERVICES})


def remove_leftovers(run_root: Path, name: str) -> None:
    """Delete the data of earlier runs of the tool `name` that were killed before they could do it."""
    for place in run_root.glob(f"{name}-[0-9]*"):
        pid = int(place.name.removeprefix(f"{name}-").split("-")[0])
        if not belongs_to(pid, place) and read_state(place):
            Runtime.attach(place).stop(remove=True)


def belongs_to(pid: int, place: Path) -> bool:
    """Whether a process that runs has made `place`: a number is given again, in a new container soon."""
    try:
        return pid != os.getpid() and psutil.Process(pid).create_time() <= place.stat().st_mtime + _CLOCK_SLACK_S
    except psutil.NoSuchProcess:
        return False


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


@contextmanager
def instance(
    run_root: Path,
    name: str,
    journey: Journey,
    *,
    ports: Ports | None = None,
    servers: Collection[ServerName] = ("postgres", "redis", *BROKERS),  # no mail is sent while we measure
) -> Iterator[Runtime]:
    """An instance for the tool `name` that is stopped, and its data removed, on the way out.

    Should this process be killed outright, the instance's own watch ends its processes.
    """
    root = run_root / f"{name}-{os.getpid()}"
    runtime = Runtime(root, ports or Ports.free_block(), servers=servers, steps=journey)
    try:
        yield runtime
    finally:
        journey.detail("stopping everything")
        runtime.stop(remove=True)


def keep_logs(runtime: Runtime, run_root: Path, name: str, journey: Journey) -> None:
    """Keep the logs of a run that found something, and say where."""
    kept = run_root / f"{name}-failed-logs"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(runtime.site.logs, kept)
    journey.say(f"the logs of this run are kept in {kept}")
