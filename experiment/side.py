"""One side of the comparison: a broker, its set of services, what was asked of it and what it did."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from deploy.native import BrokerName, Runtime
from experiment import checker
from experiment.backlog import settings_from, write_backlog
from experiment.broker_state import broker_state, dead_letter_identities
from experiment.checker import Effect, Remaining, Verdict
from experiment.clock import Clock, until
from experiment.effects import Databases, outbox_progress
from experiment.figures import Latencies, RateFigure, cumulative, rate
from experiment.ledger import Entry, Identity, Outcome
from experiment.load import LoadGenerator, LoadReport
from experiment.progress_bar import Journey
from experiment.schedule import Operation, plan_registrations, plan_steady
from experiment.usage import Usage, take_usage
from experiment.workload import Workload

_CONSUMER = "notification-consumer"
_RELAY_POLL_S = 0.05
_DRAIN_POLL_S = 0.25
_SETTLE_POLL_S = 0.1
_EVENTS_PER_S_MIN = 200
"""A backlog that moves slower than this is given up and counted as stuck."""


class StalledError(Exception):
    """The system does not do what the next phase needs; the message says what."""


@dataclass(frozen=True, slots=True)
class SteadyResult:
    """`cpu_s` by group, from the first request until every effect is there."""

    phase: str
    load: LoadReport
    latencies: Latencies
    cpu_s: dict[str, float]
    seconds: float
    clock_drift_s: float


@dataclass(frozen=True, slots=True)
class BacklogResult:
    """`waiting` is what the broker held when the consumer was started, `first_effect_s` the time from that start
    to the first effect. `cpu_s`, `cpu_effects` and `seconds` belong together: from soon after the first effect
    to the last."""

    phase: str
    events: int
    waiting: int
    relay: RateFigure
    drain: RateFigure
    whole: RateFigure
    first_effect_s: float | None
    cpu_s: dict[str, float]
    cpu_effects: int
    seconds: float
    broker_memory_bytes: int
    clock_drift_s: float


@dataclass(slots=True)
class Side:
    """Drives one broker's set of services. The set is named after the broker and must be running."""

    broker: BrokerName
    runtime: Runtime
    workload: Workload
    clock: Clock
    journey: Journey
    databases: Databases
    entries: list[Entry] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    steady_results: list[SteadyResult] = field(default_factory=list)
    backlog_results: list[BacklogResult] = field(default_factory=list)
    given_up: set[Identity | None] = field(default_factory=set)
    """Events that did not arrive in time: no later phase waits for them again."""
    verdict: Verdict = field(default_factory=Verdict)
    """What the last `verify` found."""

    # -- phases

    async def register_users(self) -> None:
        """Register the users over HTTP and wait until the order service knows them.

        Raises `StalledError` when that does not happen.
        """
        entries, report = await self.send(plan_registrations(self.workload.users), "users")
        if report.errors:
            raise StalledError(f"registering users on {self.broker} failed: {report.errors}")
        self.users = [str(entry.key) for entry in entries]

        async def known() -> bool:
            return await self.databases.known_user_count() >= len(self.users)

        if not await until(known, self.workload.settle_timeout_s, 0.1):
            raise StalledError(f"the order service on {self.broker} does not hear of the users")
        await self.settle()

    async def warm_up(self) -> None:
        """The same load for a short time; its figures are thrown away, its events are checked."""
        warm_up = self.workload.warm_up
        if warm_up.steady_s:
            await self.send(self.schedule("warm-up", warm_up.steady_s), "warm-up")
        if warm_up.backlog_events:
            await self._write_backlog(warm_up.backlog_events, "warm-up")
        await self.settle()

    async def run_steady(self, phase: str) -> None:
        """The steady load, until its last effect is recorded."""
        before, drift_s = await self._usage(), self.clock.drift_s()
        entries, report = await self.send(self.schedule(phase, self.workload.steady.duration_s), phase)
        await self.settle()
        after = await self._usage()
        committed = {effect.identity: effect.committed_s for effect in self.effects}
        latencies = Latencies()
        for entry in entries:
            if entry.identity in committed:
                latencies.record(committed[entry.identity] - entry.intended_s)
        self.steady_results.append(
            SteadyResult(
                phase=phase,
                load=report,
                latencies=latencies,
                cpu_s=after.since(before),
                seconds=after.at_s - before.at_s,
                clock_drift_s=self.clock.drift_s() - drift_s,
            )
        )

    async def run_backlog(self, phase: str) -> None:
        """Consumer stopped, backlog written and shipped to the broker, consumer started, backlog drained."""
        drift_s, events = self.clock.drift_s(), self.workload.backlog.events
        self.journey.detail("stopping the consumer")
        await asyncio.to_thread(self.runtime.processes.stop, self.process(_CONSUMER))
        position = await self.databases.last_effect_position()
        self.journey.detail(f"writing {events:,} events")
        await self._write_backlog(events, phase)
        relay = await self._await_relay(events)
        waiting = await broker_state(self.broker, self.runtime).waiting()
        self.journey.detail("starting the consumer")
        started_s = self.clock.now_s()
        await asyncio.to_thread(self.runtime.processes.start, self.process(_CONSUMER), wait=False)
        first, counted = await self._await_drain(position, events)
        last = await self._usage()
        effects = await self.databases.effects(position)
        progress = cumulative(effect.committed_s for effect in effects)
        self.backlog_results.append(
            BacklogResult(
                phase=phase,
                events=events,
                waiting=waiting,
                relay=relay,
                drain=rate(progress),
                whole=rate(progress, low=0.0, high=1.0),
                first_effect_s=progress[0].at_s - started_s if progress else None,
                cpu_s=last.since(first) if first else {},
                cpu_effects=len(effects) - counted,
                seconds=last.at_s - first.at_s if first else 0.0,
                broker_memory_bytes=last.broker_memory_bytes,
                clock_drift_s=self.clock.drift_s() - drift_s,
            )
        )
        await self.settle()

    async def verify(self) -> Verdict:
        """Compare everything that was promised with everything that was recorded.

        What is missing is looked for on its way, for which the consumer is stopped.
        """
        await self.databases.resolve(self.entries)
        await self.settle()
        verdict = await self._checked(Remaining())
        if _open(verdict) > _open(self.verdict):
            # What nobody was told of may be on its way still, and so may a letter's end.
            async def closed() -> bool:
                nonlocal verdict
                verdict = await self._checked(Remaining())
                return _open(verdict) <= _open(self.verdict)

            await until(closed, self.workload.settle_timeout_s, _SETTLE_POLL_S)
        if verdict.lost or verdict.stuck:
            self.journey.detail("looking for what is missing")
            verdict = await self._checked(await self._look_for_missing())
        self.verdict = verdict
        return verdict

    async def _checked(self, remaining: Remaining) -> Verdict:
        # The state first: what is committed after it need not have taken effect yet.
        state = await self.databases.state()
        self.effects = await self.databases.effects()
        return checker.check(self.entries, self.effects, remaining, state)

    def committed_s(self) -> dict[Identity, float]:
        """When each effect was committed, as of the last `verify`."""
        return {effect.identity: effect.committed_s for effect in reversed(self.effects)}

    # -- inside

    def process(self, name: str) -> str:
        """The supervised name of `order`, `notification-consumer`, …."""
        return f"{self.broker}-{name}"

    def schedule(self, phase: str, duration_s: float) -> list[Operation]:
        """The steady load of a phase."""
        # The same seed on both sides: both get the same load, request by request.
        return plan_steady(self.workload.steady, self.workload.users, duration_s, f"{self.workload.seed}-{phase}")

    async def _usage(self) -> Usage:
        return await asyncio.to_thread(take_usage, self.runtime, self.broker, time.monotonic())

    async def send(
        self, operations: list[Operation], phase: str, enough: asyncio.Event | None = None
    ) -> tuple[list[Entry], LoadReport]:
        """Send operations over HTTP, all or until `enough`; their ledger entries are among `entries` once all are
        answered."""
        steady = self.workload.steady
        of_all = "" if enough else f" of {len(operations):,}"
        generator = LoadGenerator(
            self.runtime.addresses.service_urls(self.broker),
            self.users,
            self.clock,
            in_flight_max=steady.in_flight_max,
            timeout_s=steady.request_timeout_s,
            lines_per_order=steady.lines_per_order,
            on_sent=lambda count: self.journey.detail(f"{count:,}{of_all} requests"),
        )
        entries, report = await generator.run(operations, phase, enough)
        self.entries += entries
        return entries, report

    async def _write_backlog(self, events: int, phase: str) -> None:
        self.entries += await write_backlog(
            settings_from(self.runtime.service_env("order", self.broker, self.broker)),
            self.users,
            self.workload.backlog,
            events=events,
            phase=phase,
            seed=f"{self.workload.seed}-{phase}",
            clock=self.clock,
        )

    async def _await_relay(self, events: int) -> RateFigure:
        samples: list[tuple[float, tuple[int, int] | None]] = []

        async def shipped() -> bool:
            ends = await self.databases.outbox_ends()
            samples.append((self.clock.now_s(), ends))
            if ends is not None:
                self.journey.detail(f"the relay has {ends[1] - ends[0] + 1:,} events to ship")
            return ends is None

        await until(shipped, self._patience_s(events), _RELAY_POLL_S)
        return rate(outbox_progress(samples))

    async def _await_drain(self, position: int, events: int) -> tuple[Usage | None, int]:
        """Usage soon after the first effect, and how many effects there were then."""
        first: Usage | None = None
        counted = 0

        async def drained() -> bool:
            nonlocal first, counted
            count = await self.databases.effect_count(position)
            if count and first is None:
                first, counted = await self._usage(), await self.databases.effect_count(position)
            self.journey.detail(f"{count:,} of {events:,} effects")
            return count >= events

        await until(drained, self._patience_s(events), _DRAIN_POLL_S)
        return first, counted

    def _patience_s(self, events: int) -> float:
        return self.workload.settle_timeout_s + events / _EVENTS_PER_S_MIN

    async def settle(self) -> None:
        """Wait until every acknowledged event has its effect, or give up those that do not get it in time."""
        acknowledged = sum(entry.outcome is Outcome.ACKNOWLEDGED for entry in self.entries)

        async def settled() -> bool:
            if await self.databases.effect_count(0) < acknowledged - len(self.given_up):
                return False
            position = self.effects[-1].position if self.effects else 0
            self.effects += await self.databases.effects(position)
            if self._missing():
                # A transaction that began earlier may commit later, with lower positions than those read so far.
                self.effects = await self.databases.effects()
            return not self._missing()

        if not await until(settled, self.workload.settle_timeout_s, _SETTLE_POLL_S):
            self.effects = await self.databases.effects()
            self.given_up |= self._missing()

    def _missing(self) -> set[Identity | None]:
        return {entry.identity for entry in checker.missing(self.entries, self.effects)} - self.given_up

    async def _look_for_missing(self) -> Remaining:
        await asyncio.to_thread(self.runtime.processes.stop, self.process(_CONSUMER))
        settings = settings_from(self.runtime.service_env(_CONSUMER, self.broker, self.broker))
        return Remaining(
            in_outbox=await self.databases.outbox_identities(),
            in_queue=await broker_state(self.broker, self.runtime).peek(),
            in_dead_letters=await dead_letter_identities(settings) | await self.databases.kept_identities(),
        )


def _open(verdict: Verdict) -> int:
    """How much of what was found may yet come right."""
    return len(verdict.lost) + len(verdict.stuck) + len(verdict.dead_lettered) + len(verdict.stale)
