"""One broker's set of services in an experiment: loads it, waits for it and checks what it did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deploy.native import BrokerName, Runtime
from deploy.native.servers.table import SERVERS_BY_NAME
from deploy.topology import ServerName
from experiment import broker_state, checker
from experiment.backlog import settings_from, write_backlog
from experiment.checker import Effect, Remaining, Verdict
from experiment.clock import Clock, until
from experiment.effects import CONSUMER, Databases
from experiment.ledger import Entry, Identity, Outcome
from experiment.load import LoadGenerator, LoadReport
from experiment.past_http import OutboxLoad
from experiment.progress_bar import ProgressBar
from experiment.schedule import Operation, plan_registrations, plan_steady
from experiment.usage import Usage, take_usage
from experiment.workload import Backlog, Steady, Workload
from shared.settings import Settings

Supervised = Mapping[ServerName, tuple[int, ...]]
_SETTLE_POLL_S = 0.1
_CHECK_POLL_S = 0.5
"""A whole check reads every table, and the broker."""


class StalledError(Exception):
    """The system does not do what the next phase needs; the message says what."""


@dataclass(slots=True)
class Side:
    """One broker's set of services, which is named after the broker and must be running, and what it was asked.

    `own_broker` says where the broker is, if it is somebody's own: then its processes cannot be looked at.
    `entries` and `effects` are what was asked and what was done so far, `users` the ids of the registered users.
    """

    broker: BrokerName
    runtime: Runtime
    workload: Workload
    clock: Clock
    progress: ProgressBar
    databases: Databases
    own_broker: str | None = None
    entries: list[Entry] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    given_up: set[Identity | None] = field(default_factory=set)
    """Events that did not arrive in time: no later phase waits for them again."""
    verdict: Verdict = field(default_factory=Verdict)
    """What the last `verify` found."""
    _supervised: Supervised = field(init=False, default_factory=dict)
    """The process of each node of each server, when usage was taken last."""

    def process(self, name: str) -> str:
        """The supervised name of `order`, `notification-consumer`, …."""
        return f"{self.broker}-{name}"

    @property
    def consumers(self) -> list[str]:
        """The supervised names of the processes whose effects are counted."""
        first = self.process(CONSUMER)
        return [first, *(f"{first}-{number}" for number in range(2, self.workload.consumers + 1))]

    async def stop_consumers(self) -> None:
        """They stay down until `start_consumers`."""
        stop = self.runtime.processes.stop
        await asyncio.gather(*(asyncio.to_thread(stop, name) for name in self.consumers))

    async def start_consumers(self) -> None:
        """Start what was stopped, without waiting until it is ready."""
        start = self.runtime.processes.start
        await asyncio.gather(*(asyncio.to_thread(start, name, wait=False) for name in self.consumers))

    def settings(self, name: str) -> Settings:
        """The settings of the process `order`, `notification-consumer`, …, for using its code here."""
        return settings_from(self.runtime.service_env(name, self.broker, self.broker))

    # -- load

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

    def schedule(self, phase: str, duration_s: float, steady: Steady | None = None) -> list[Operation]:
        """The steady load of a phase: the workload's, or another."""
        # The same seed on both sides: both get the same load, request by request.
        load = steady or self.workload.steady
        return plan_steady(load, self.workload.users, duration_s, f"{self.workload.seed}-{phase}")

    async def send(
        self, operations: list[Operation], phase: str, enough: asyncio.Event | None = None
    ) -> tuple[list[Entry], LoadReport]:
        """Send operations over HTTP, all of them or until `enough`.

        Returns their ledger entries, which are among `entries` from then on, when all are answered.
        """
        of_all = "" if enough else f" of {len(operations):,}"
        return await self._run(LoadGenerator(**_generator(self, of_all)), operations, phase, enough)

    async def send_past_http(self, operations: list[Operation], phase: str) -> tuple[list[Entry], LoadReport]:
        """The same, each request a transaction of this process that the relay finds in the outbox."""
        settings = {service: self.settings(service) for service in ("order", "user")}
        generator = OutboxLoad(settings, **_generator(self, f" of {len(operations):,}"))
        return await self._run(generator, operations, phase, None)

    async def _run(
        self, generator: LoadGenerator, operations: list[Operation], phase: str, enough: asyncio.Event | None
    ) -> tuple[list[Entry], LoadReport]:
        entries, report = await generator.run(operations, phase, enough)
        self.entries += entries
        return entries, report

    async def write_backlog(self, events: int, phase: str, backlog: Backlog | None = None) -> list[Entry]:
        """Commit so many events to the outboxes at once, past HTTP; returns their entries.

        What they are of is said by `backlog`, or else by the workload's.
        """
        entries = await write_backlog(
            self.settings("order"),
            self.users,
            backlog or self.workload.backlog,
            events=events,
            phase=phase,
            seed=f"{self.workload.seed}-{phase}",
            clock=self.clock,
            note_bytes=self.workload.payload_bytes,
            user_settings=self.settings("user"),
        )
        self.entries += entries
        return entries

    async def broker_works(self) -> bool:
        """Whether the broker does real work now."""
        if self.own_broker is not None:
            return await broker_state.answers(self.settings(CONSUMER))
        return await asyncio.to_thread(self.runtime.processes.is_healthy, self.broker)

    async def usage(self) -> Usage:
        """CPU time and memory of everything that takes part, now. Raises `StalledError` where a server has ended
        since the last time."""
        used = await asyncio.to_thread(take_usage, self.runtime, self.broker, time.monotonic())
        _require_same_servers(self._supervised, used.supervised)
        self._supervised = used.supervised
        return used

    # -- check

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

            await until(closed, self.workload.settle_timeout_s, _CHECK_POLL_S)
        if verdict.lost or verdict.stuck:
            self.progress.detail("looking for what is missing")
            verdict = await self._checked(await self._look_for_missing())
        self.verdict = verdict
        return verdict

    def committed_s(self) -> dict[Identity, float]:
        """When each effect was committed, as of the last `verify`."""
        return {effect.identity: effect.committed_s for effect in reversed(self.effects)}

    async def _checked(self, remaining: Remaining) -> Verdict:
        # The state first: what is committed after it need not have taken effect yet.
        state = await self.databases.state()
        if not await asyncio.to_thread(self.runtime.processes.runs, self.process("dead-letter")):
            # No dead-letter service takes them out of the broker, whose tables would tell of them.
            # Whatever else is found: an event may have its effect and a letter, having come twice.
            letters = await broker_state.dead_letter_identities(self.settings(CONSUMER))
            state = replace(state, failed={*state.failed, *letters})
        self.effects = await self.databases.effects()
        return checker.check(self.entries, self.effects, remaining, state)

    def _missing(self) -> set[Identity | None]:
        return {entry.identity for entry in checker.missing(self.entries, self.effects)} - self.given_up

    async def _look_for_missing(self) -> Remaining:
        await self.stop_consumers()
        settings = self.settings(CONSUMER)
        return Remaining(
            in_outbox=await self.databases.outbox_identities(),
            in_queue=await broker_state.peek(settings),
            in_dead_letters=await broker_state.dead_letter_identities(settings)
            | await self.databases.kept_identities(),
        )


def _generator(side: Side, of_all: str) -> dict[str, Any]:
    """What a load generator of the side is made of."""
    steady = side.workload.steady
    return {
        "urls": side.runtime.addresses.service_urls(side.broker),
        "users": side.users,
        "clock": side.clock,
        "in_flight_max": steady.in_flight_max,
        "timeout_s": steady.request_timeout_s,
        "lines_per_order": steady.lines_per_order,
        "note_bytes": side.workload.payload_bytes,
        "seed": str(side.workload.seed),
        "on_sent": lambda count: side.progress.detail(f"{count:,}{of_all} requests"),
    }


def _open(verdict: Verdict) -> int:
    """How much of what was found may yet come right."""
    return len(verdict.lost) + len(verdict.stuck) + len(verdict.dead_lettered) + len(verdict.stale)


def _require_same_servers(before: Supervised, now: Supervised) -> None:
    """A server that crashed is started again by its supervisor: what is measured over that is a crash."""
    for server, processes in before.items():
        if now.get(server, processes) != processes:
            again = "is not started again yet" if 0 in now[server] else "was started again"
            raise StalledError(f"{SERVERS_BY_NAME[server].title} ended in the middle of the run, and {again}")
