"""Runs the comparison: one instance with both brokers and a set of services on each, rounds in turns, a check."""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from compare.controls import run_wire
from compare.freezing import DISCARDED_S, Freezer
from compare.ladder import lower_capacity, run_rung, search_capacity
from compare.layers import layers_s, run_layers
from compare.measured import AGAIN, FOREIGN_SHARE_MAX, MeasuredSide, foreign_share, stamps_directory
from compare.phases import IDLE_S, measure_idle, run_backlog, run_steady
from compare.scenarios import run_scenario
from compare.warming import warm_up, windows_of
from deploy.errors import DeployError
from deploy.native import Runtime
from deploy.topology import BROKERS, BrokerName
from experiment import facts
from experiment.broker_state import topology
from experiment.clock import Clock, until
from experiment.containers import Contained
from experiment.effects import CONSUMER
from experiment.instance import databases_of, instance, keep_logs, remove_leftovers
from experiment.own_brokers import NONE_OWN, OwnBrokerError, OwnBrokers, delete_leftovers, guarded
from experiment.profiles import PROFILES, Profile
from experiment.progress_bar import Phase, ProgressBar
from experiment.schedule import turns
from experiment.side import Side, StalledError
from experiment.signals import Interrupted, ignore_signals, run_until_signal
from experiment.stamping import STAMPED, Planted, planted, stamps_environment
from experiment.workload import Workload
from shared.errors import TandemError

SERVERS = "starting the servers"
SERVICES = "starting the services"
USERS = "registering users"
WARM_UP = "warm-up"
STEADY = "steady load"
BACKLOG = "backlog"
CHECK = "checking every event"
SECOND_LOOK = "quiet, and a second look"
REPEATED = "repeated steady load"
DELAYED = "delayed steady load"
SLOWED = "slowed backlog"
PLANTED = "planted faults"
CAPACITY = "searching the capacity"
RUNG = "rung"
LAYERS = "layers"
SCENARIO = "scenario"
IDLE = "idle, both"
ALONE = frozenset({STEADY, BACKLOG, REPEATED, DELAYED, SLOWED, CAPACITY, RUNG})
"""Phases during which the other side may be frozen."""

_NAME = "compare"
_SILENT_MAX_S = 30.0
_PAYLOAD_BYTES_PER_S = 8e6
"""About how fast notes get through all of it, for estimates."""


@dataclass(slots=True)
class RunResult:
    """What a run found on each side, and what that depends on.

    `cut_short` says what ended it before its end: then its events were not checked. `interrupted`: a signal did.
    `left_behind` is what could not be deleted from brokers of one's own.
    """

    workload: Workload
    started_at: datetime
    sides: dict[BrokerName, MeasuredSide] = field(default_factory=dict)
    cut_short: str | None = None
    interrupted: bool = False
    left_behind: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    took_s: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether no side lost, doubled or reordered anything, or left it behind."""
        return not self.cut_short and all(measured.sound for measured in self.sides.values())


def plan(workload: Workload) -> list[Phase]:
    """The phases of the run in their order. Estimates are of a machine with two cores."""
    steady_s = workload.steady.duration_s + workload.steady.follow_up_after_s + 1
    backlog_s = 7 + workload.backlog.events * (1 / 4_000 + workload.payload_bytes / _PAYLOAD_BYTES_PER_S)
    window_s, windows = windows_of(workload)
    warm_up_s = windows * window_s + 2 + workload.warm_up.backlog_events / 1_500
    phases = [Phase(SERVERS, 10), Phase(SERVICES, 14 + 2 * workload.consumers)]
    phases += [Phase(USERS, 2 + workload.users / 50, broker) for broker in BROKERS]
    phases += [Phase(WARM_UP, warm_up_s, broker) for broker in BROKERS]
    if workload.freeze:
        phases.append(Phase(IDLE, IDLE_S + 1))
        steady_s, backlog_s = steady_s + DISCARDED_S + 3, backlog_s + DISCARDED_S + 3
    for number in range(1, workload.rounds + 1):
        order = turns(workload.seed, number)
        steady = [Phase(STEADY, steady_s, broker, number) for broker in order]
        backlog = [Phase(BACKLOG, backlog_s, broker, number) for broker in reversed(order)]
        if not workload.has_backlog(number):
            backlog = []
        if workload.controls.timing:
            # Before what they are compared with in every even round, after it in every odd one.
            steady = _beside(number, steady, [Phase(REPEATED, steady_s, broker, number) for broker in order])
            steady = _beside(number, steady, [Phase(DELAYED, steady_s, order[0], number)])
            if backlog:
                backlog = _beside(number, backlog, [Phase(SLOWED, backlog_s * 1.1, order[0], number)])
        phases += [*steady, *backlog]
    phases += _ladder(workload)
    phases += _scenarios(workload)
    phases += [Phase(CHECK, 2, broker) for broker in BROKERS]
    phases += [Phase(SECOND_LOOK, workload.quiet_s + 1, broker) for broker in BROKERS if workload.quiet_s]
    phases += [Phase(PLANTED, 7, broker) for broker in BROKERS if workload.controls.wire]
    return phases + _layers(workload)


def _scenarios(workload: Workload) -> list[Phase]:
    return [
        Phase(f"{SCENARIO} {asked.kind}", asked.duration_s + 8, broker, number)
        for asked in workload.scenarios
        for number in range(1, asked.rounds + 1)
        for broker in turns(workload.seed, number)
    ]


def _layers(workload: Workload) -> list[Phase]:
    """Last: what the pipeline alone records, nobody published."""
    asked = workload.layers
    if asked is None:
        return []
    numbers = range(1, asked.rounds + 1)
    return [
        Phase(LAYERS, layers_s(broker, asked, number), broker, number)
        for number in numbers
        for broker in turns(workload.seed, number)
    ]


def _ladder(workload: Workload) -> list[Phase]:
    asked = workload.ladder
    if asked is None:
        return []
    phases = [Phase(CAPACITY, asked.tries * (asked.search_s + 4), broker) for broker in BROKERS]
    for number in range(1, len(asked.shares) + 1):
        order = turns(workload.seed, number)
        phases += [Phase(RUNG, asked.duration_s + 2, broker, number) for broker in order]
    return phases


def _beside(number: int, phases: list[Phase], more: list[Phase]) -> list[Phase]:
    return [*phases, *more] if number % 2 else [*more, *phases]


def run(
    workload: Workload, run_root: Path, own: OwnBrokers = NONE_OWN, contained: Contained | None = None
) -> RunResult:
    """Run the whole comparison below `run_root`, and leave nothing running and no data behind, however it ends.

    Brokers of one's `own` are used in place of started ones; `OwnBrokerError` is raised, before anything starts,
    when that cannot be. `contained` are all servers, where somebody started them in containers. What ends it
    before anything was measured is raised: `DeployError` when servers or services do not come up, `StalledError`
    when the system does not work, `Interrupted`. Later, `cut_short` says it.
    """
    if own.where and PROFILES[workload.profile].nodes > 1:
        raise OwnBrokerError(
            f"the profile {workload.profile} is of nodes that a run starts, not of one's own brokers"
        )
    delete_leftovers(run_root, _NAME, _say)
    with guarded(own, _say) as left:
        outcome = _run(workload, run_root, own, contained)
    outcome.left_behind = left
    return outcome


def _say(sentence: str) -> None:
    print(f"compare: {sentence}", file=sys.stderr)


def _run(workload: Workload, run_root: Path, own: OwnBrokers, contained: Contained | None) -> RunResult:
    remove_leftovers(run_root, _NAME)
    outcome = RunResult(workload, datetime.now(UTC))
    began = time.monotonic()
    # Servers that somebody started are starting now.
    outcome.hardware = facts.hardware(facts.busy_percent() if contained is None else None)
    phases, profile = plan(workload), PROFILES[workload.profile]
    with (
        ProgressBar(phases) as progress,
        instance(
            run_root,
            _NAME,
            progress,
            servers=("postgres", "redis", *own.started),
            durability=profile.durability,
            nodes=profile.nodes,
            contained=contained,
        ) as runtime,
    ):
        servers, services, *rest = phases
        with progress.phase(servers):
            runtime.start_servers()
        before = facts.fsync_ms(runtime.root)
        with progress.phase(services):
            start_both_sets(runtime, profile, own, workload.consumers)
        outcome.versions = facts.versions(runtime, own)
        outcome.settings = facts.settings(runtime, profile, own)
        try:
            run_until_signal(_drive(outcome, runtime, progress, rest, own))
        except Interrupted as signal_name:
            outcome.interrupted = True
            _cut_short(outcome, f"interrupted by {signal_name}")
        except Exception as error:  # noqa: BLE001  whatever it is: what was measured until then must be told
            if not isinstance(error, DeployError | StalledError | TandemError):  # those say what is wrong
                progress.say(traceback.format_exc())
            _cut_short(outcome, str(error) or type(error).__name__)
        ignore_signals()
        outcome.hardware["fsync_ms"] = {"before": before, "after": facts.fsync_ms(runtime.root)}
        if not outcome.sound:
            keep_logs(runtime, run_root, _NAME, progress)
    outcome.took_s = time.monotonic() - began
    return outcome


def _cut_short(outcome: RunResult, reason: str) -> None:
    """Note why the run ends here; raises what is being handled, where there is nothing to tell."""
    if not any(measured.steady or measured.backlogs for measured in outcome.sides.values()):
        raise  # noqa: PLE0704  its callers handle it
    outcome.cut_short = reason


def start_both_sets(runtime: Runtime, profile: Profile, own: OwnBrokers = NONE_OWN, consumers: int = 1) -> None:
    """Start a set of services on each broker, named after it, and wait until all processes are ready."""
    measured = [row.name for row in facts.MEASURED]
    ready: list[str] = []
    for broker in BROKERS:
        told = {
            **facts.services_environment(profile),
            **stamps_environment(stamps_directory(runtime.root, broker)),
            **own.environment(broker),
        }
        made = runtime.start_services(
            broker,
            measured,
            instance=broker,
            env_overrides=told,
            replicas={CONSUMER: consumers},
            modules=STAMPED,
            wait=False,
        )
        ready += [row.name for row in made.processes if row.process in measured]
    for name in ready:
        runtime.processes.wait_ready(name)


async def _drive(
    outcome: RunResult, runtime: Runtime, progress: ProgressBar, phases: list[Phase], own: OwnBrokers
) -> None:
    clock = Clock()
    async with AsyncExitStack() as stack:
        for broker in BROKERS:
            databases = await stack.enter_async_context(databases_of(runtime, broker))
            side = Side(
                broker, runtime, outcome.workload, clock, progress, databases, own_broker=own.where.get(broker)
            )
            outcome.sides[broker] = MeasuredSide(side)
        freezer = await stack.enter_async_context(Freezer(outcome.sides))
        for kind, group in groupby(phases, key=lambda phase: (phase.kind, phase.round_number)):
            together = list(group)
            await _run_phases(together, outcome, progress, freezer)
            if kind[0] in (STEADY, BACKLOG) and put_aside_if_disturbed(kind[0], outcome):
                again = [replace(phase, again=True) for phase in together]
                for phase in again:
                    progress.add(phase)
                await _run_phases(again, outcome, progress, freezer)
        outcome.settings["topology"] = {
            broker: await topology(
                measured.side.settings(CONSUMER),
                runtime.addresses.management_url if measured.broker_measured else None,
            )
            for broker, measured in outcome.sides.items()
        }


async def _run_phases(phases: list[Phase], outcome: RunResult, progress: ProgressBar, freezer: Freezer) -> None:
    for phase in phases:
        with progress.phase(phase):
            if outcome.workload.freeze:
                await freezer.leave([phase.broker] if phase.broker and phase.kind in ALONE else BROKERS)
            if phase.kind == IDLE:
                await measure_idle(outcome.sides, IDLE_S)
                continue
            assert phase.broker is not None
            await _require(outcome.sides[phase.broker].side)
            if phase.kind == RUNG:
                await _run_rung(phase, outcome)
            else:
                await _run_phase(phase, outcome.sides[phase.broker])


async def _require(side: Side) -> None:
    """Raises `StalledError` when the broker does no real work: whatever followed would wait for it in vain."""
    if not await until(side.broker_works, _SILENT_MAX_S, 1.0):
        raise StalledError(f"{facts.TITLES[side.broker]} has not answered for {_SILENT_MAX_S:g} s")


def put_aside_if_disturbed(kind: str, outcome: RunResult) -> bool:
    """Whether other programs disturbed a phase of the last pair: then neither of the pair counts."""
    cores = float(outcome.hardware["cores"] or 1)
    pair: list[tuple[MeasuredSide, list[Any]]] = [
        (measured, measured.steady if kind == STEADY else measured.backlogs) for measured in outcome.sides.values()
    ]
    if all(foreign_share(results[-1], cores) <= FOREIGN_SHARE_MAX for _, results in pair):
        return False
    for measured, results in pair:
        measured.void.append(results.pop())
    return True


async def _run_phase(phase: Phase, measured: MeasuredSide) -> None:
    side, number = measured.side, phase.round_number or 0
    name = f"{phase.kind.split()[0]}-{number}" + (AGAIN if phase.again else "")
    if phase.kind == USERS:
        await side.databases.drop_unique_constraint()
        await side.register_users()
    elif phase.kind == WARM_UP:
        await warm_up(measured)
    elif phase.kind == STEADY:
        measured.steady.append(await run_steady(measured, name))
    elif phase.kind == BACKLOG:
        measured.backlogs.append(await run_backlog(measured, name))
    elif phase.kind == CAPACITY and side.workload.ladder:
        await search_capacity(measured, side.workload.ladder)
    elif phase.kind.startswith(SCENARIO):
        kind = phase.kind.removeprefix(f"{SCENARIO} ")
        asked = next(each for each in side.workload.scenarios if each.kind == kind)
        measured.scenarios.append(await run_scenario(measured, asked, number))
    elif phase.kind == LAYERS and side.workload.layers:
        await run_layers(measured, side.workload.layers, number)
    elif phase.kind == CHECK:
        await side.verify()
    elif phase.kind == SECOND_LOOK:
        await asyncio.sleep(side.workload.quiet_s)
        await side.verify()
    else:
        await _run_control(phase.kind, number, name, measured)


async def _run_rung(phase: Phase, outcome: RunResult) -> None:
    asked, capacity = outcome.workload.ladder, lower_capacity(outcome.sides)
    assert asked is not None
    assert phase.broker is not None
    if capacity is not None:  # otherwise there is nothing to take a share of
        share = asked.shares[(phase.round_number or 1) - 1]
        await run_rung(outcome.sides[phase.broker], share, capacity, asked)


async def _run_control(kind: str, number: int, name: str, measured: MeasuredSide) -> None:
    controls, asked, place = measured.controls, measured.side.workload.controls, measured.stamps.directory
    if kind == REPEATED:
        controls.repeated[number] = await run_steady(measured, name)
    elif kind == DELAYED:
        with planted(place, Planted(delay_s=asked.delay_ms / 1_000)):
            controls.delayed[number] = await run_steady(measured, name)
    elif kind == SLOWED:
        # Standing still for a quarter of the time that it works leaves four fifths of its speed.
        with planted(place, Planted(slowdown=asked.slowdown / (1 - asked.slowdown))):
            controls.slowed[number] = await run_backlog(measured, name)
    else:
        assert kind == PLANTED
        controls.wire = await run_wire(measured)
