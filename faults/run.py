"""Runs the faults: an instance, its services on each broker, one fault after the other, the results."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.errors import DeployError
from deploy.native import Ports, Runtime
from deploy.topology import BROKERS, BrokerName, ServerName
from experiment import facts
from experiment.checker import Verdict
from experiment.clock import Clock
from experiment.instance import databases_of, instance, keep_logs, remove_leftovers
from experiment.ledger import Entry, Identity
from experiment.profiles import PROFILES
from experiment.progress_bar import Phase, ProgressBar
from experiment.side import Side, StalledError
from experiment.signals import ignore_signals, run_until_signal
from experiment.workload import Workload, load_workload
from faults.beside import Companies, Findings, Kind, processes_of
from faults.fault import Fault
from faults.kinds import KINDS
from faults.phase import PhaseResult, play, verify, verify_beside
from faults.proxy import Proxies

NAME = "faults"
LOAD = Path(__file__).parent / "load.yml"

_STARTING = "starting servers and services"
_USERS = "registering users"
_QUIET = "quiet, and the last check"
_QUIET_S = 10.0
"""After the last fault: what comes so late is charged to all of them."""
_SERVICE_SETTINGS = {
    "TANDEM_HANDLER_TIMEOUT_S": "15",  # and with it how long a stopped process may hold locks: see the zombie
    # A lost worker's steps run again after six seconds and not after twenty.
    "TANDEM_WORKER_BEAT_INTERVAL_S": "1",
    "TANDEM_WORKER_BEAT_LIMIT_S": "5",
    "TANDEM_WORKER_CHILDREN_MAX": "2",
}


@dataclass(slots=True)
class RunResult:
    """What a run found: the phases by broker in the order played.

    `afterwards` is what was found in the quiet after the last fault of a stage; `broken` says why the run ended
    early, if it did.
    """

    workload: Workload
    started_at: datetime
    phases: dict[BrokerName, list[PhaseResult]] = field(default_factory=dict)
    afterwards: list[tuple[BrokerName, Verdict]] = field(default_factory=list)
    beside_afterwards: list[tuple[BrokerName, Kind, Findings]] = field(default_factory=list)
    committed_s: dict[str, dict[Identity, float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    took_s: float = 0.0
    broken: str | None = None

    @property
    def entries(self) -> dict[str, list[Entry]]:
        """All that was asked while faults were played, by broker."""
        return {
            broker: [entry for phase in phases for entry in phase.entries]
            for broker, phases in self.phases.items()
            if phases
        }

    @property
    def sound(self) -> bool:
        """Whether all was played, nothing lost, doubled or left behind, and everything serves again."""
        played = all(phase.sound for part in self.phases.values() for phase in part)
        quiet = all(verdict.complete for _, verdict in self.afterwards)
        return (
            self.broken is None and played and quiet and all(found.sound for *_, found in self.beside_afterwards)
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs on one instance: services on this broker, of so many nodes, and these faults."""

    broker: BrokerName
    nodes: int
    faults: tuple[Fault, ...]
    kinds: tuple[Kind, ...] = KINDS
    """What runs beside the orders."""

    @property
    def servers(self) -> tuple[ServerName, ...]:
        return ("postgres", "redis", self.broker)

    def phases(self) -> list[Phase]:
        """The parts of the stage for the progress bar; estimates are of a machine with two cores."""
        return [
            Phase(_STARTING, 21),
            Phase(_USERS, 3, self.broker),
            *(Phase(fault.title, fault.load_s + 8, self.broker) for fault in self.faults),
            Phase(_QUIET, _QUIET_S + 2),
        ]


def stages(brokers: Sequence[BrokerName], faults: Sequence[Fault], kinds: tuple[Kind, ...] = KINDS) -> list[Stage]:
    """One broker at a time, since an idle set on the other takes processors too; those of one node first."""
    made = [
        Stage(
            broker,
            nodes,
            tuple(fault for fault in faults if fault.nodes == nodes and broker in fault.brokers),
            kinds,
        )
        for nodes in (1, 3)
        for broker in BROKERS
        if broker in brokers
    ]
    return [stage for stage in made if stage.faults]


def run(planned: Sequence[Stage], run_root: Path, workload: Workload | None = None) -> RunResult:
    """Play everything, below `run_root`, and leave nothing running and no data behind, however it ends."""
    remove_leftovers(run_root, NAME)
    result = RunResult(workload or load_workload(LOAD), datetime.now(UTC))
    began = time.monotonic()
    result.hardware = facts.hardware(facts.busy_percent())
    with ProgressBar([phase for stage in planned for phase in stage.phases()]) as progress:
        for stage in planned:
            try:
                _run_stage(stage, result, run_root, progress, last=stage is planned[-1])
            except Exception as error:  # noqa: BLE001  whatever it is: what was found until then must be told
                result.broken = f"{type(error).__name__}: {error}"
                if not isinstance(error, DeployError | StalledError):  # those say themselves what is wrong
                    progress.say(traceback.format_exc())
                break
    result.took_s = time.monotonic() - began
    return result


def _run_stage(
    stage: Stage, result: RunResult, run_root: Path, progress: ProgressBar, *, last: bool = False
) -> None:
    ports = Ports.free_block(proxied=stage.nodes == 1, nodes=stage.nodes)
    proxied = {
        name: ends for name, ends in ports.proxies.items() if ports.proxied and name in (*map(str, stage.servers),)
    }
    with (
        instance(run_root, NAME, progress, ports=ports, servers=stage.servers) as runtime,
        Proxies(proxied) as proxies,
    ):
        try:
            with progress.phase(stage.phases()[0]):
                runtime.start_servers()
                start_services(runtime, stage.broker, stage.kinds)
            result.versions |= facts.versions(runtime)
            run_until_signal(_drive(stage, result, runtime, proxies, progress))
            if last:
                ignore_signals()
        except Exception:
            keep_logs(runtime, run_root, NAME, progress)
            raise
        if not result.sound:
            keep_logs(runtime, run_root, NAME, progress)


def start_services(runtime: Runtime, broker: BrokerName, kinds: Sequence[Kind] = ()) -> None:
    """A set of services on a broker, named after it; with what these need beside the orders."""
    chosen = facts.PLAYED | processes_of(kinds)
    settings = {**facts.services_environment(PROFILES["as-usual"]), **_SERVICE_SETTINGS}
    modules: dict[str, Sequence[str]] = {}
    for kind in kinds:
        settings |= kind.environment
        modules |= {name: module for name, module in kind.modules.items() if module}
    runtime.start_services(broker, chosen, instance=broker, env_overrides=settings, modules=modules, wait=False)
    for row in runtime.sets[broker].processes:
        if row.process in chosen:
            runtime.processes.wait_ready(row.name)


async def _drive(
    stage: Stage, result: RunResult, runtime: Runtime, proxies: Proxies, progress: ProgressBar
) -> None:
    clock = Clock()
    broker = stage.broker
    left = iter(stage.phases()[1:])
    async with databases_of(runtime, broker) as databases:
        side = Side(broker, runtime, result.workload, clock, progress, databases)
        with progress.phase(next(left)):
            await databases.drop_unique_constraint()
            await side.register_users()
            companies = {kind: kind.make(side) for kind in stage.kinds}
            for company in companies.values():
                await company.prepare()
        for fault in stage.faults:
            with progress.phase(next(left)):
                await _play(fault, side, companies, proxies, result)
        with progress.phase(next(left)):
            await asyncio.sleep(_QUIET_S)
            await databases.connect()
            result.afterwards.append((broker, await verify(side, [])))
            for kind, found in (await verify_beside(companies)).items():
                result.beside_afterwards.append((broker, kind, found))


async def _play(fault: Fault, side: Side, companies: Companies, proxies: Proxies, result: RunResult) -> None:
    result.phases.setdefault(side.broker, []).append(await play(fault, side, proxies, companies))
    result.committed_s.setdefault(side.broker, {}).update(side.committed_s())
