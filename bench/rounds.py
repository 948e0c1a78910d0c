"""Runs the rounds: in each, every contender drains the same backlog, in an order that is drawn anew."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import backlog
from bench.backlog import Advance
from bench.effects import Effects
from bench.errors import BenchError
from bench.events import WireEvent, make_events
from bench.ledger import Ledger, TransferRequested
from bench.profiling import profiled
from bench.publishing import Publishing
from bench.rows import (
    BY_HAND,
    CELERY,
    IN_THIS_PROCESS,
    INBOX_ALONE,
    LONG,
    OF_MONEY,
    RELAY,
    ROWS,
    TANDEM,
    TASKS,
    TASKS_HOT,
    TRACED,
    WALLET,
    WALLET_HOT,
    Contender,
)
from deploy.paths import REPOSITORY
from experiment import broker_state
from experiment.clock import until
from shared.settings import Settings

_POLL_S = 0.2
_STALLED_S = 90.0
_SETTLED_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 40.0
_LOG_LINES = 15
CELERY_WORKERS = 2
_WALLET = "wallet"
"""As its subscriber is called."""
TRANSFER_WORKERS = 4
"""More than the cores: each waits for its commit."""
_CELERY = (
    "-m celery -A bench.contenders.{} worker --pool prefork --concurrency {} "
    "--loglevel WARNING --without-gossip --without-mingle --without-heartbeat"
)

_COMMANDS = {
    TANDEM: "-m bench.contenders.tandem {channel} {name}",
    TRACED: "-m bench.contenders.tandem {channel} {name}",
    LONG: "-m bench.contenders.tandem {channel} {name}",
    BY_HAND: "-m bench.contenders.by_hand_{broker} {channel} {name}",
    INBOX_ALONE: "-m bench.contenders.by_hand_{broker} {channel} {name} --inbox-alone",
    WALLET: "-m services.wallet.app",
    WALLET_HOT: "-m services.wallet.app",
    **dict.fromkeys((TASKS, TASKS_HOT), _CELERY.format("celery_transfers", TRANSFER_WORKERS)),
    CELERY: _CELERY.format("celery_app", CELERY_WORKERS),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: the rows of these names on these brokers.

    In each round a contender drains, or publishes, `events`; Celery, which is slow, `celery_events`, and the one
    with the long backlog `long_events`.
    """

    rounds: int
    events: int
    celery_events: int
    long_events: int
    brokers: tuple[str, ...]
    rows: tuple[str, ...]
    seed: int

    @property
    def contenders(self) -> list[Contender]:
        """Each once."""
        rows = [row for row in ROWS if row.name in self.rows and row.broker in self.brokers]
        return list(dict.fromkeys(contender for row in rows for contender in (row.ours, row.theirs)))

    def events_of(self, contender: Contender) -> int:
        """How many it gets in a round."""
        if contender.name in (CELERY, TASKS, TASKS_HOT):
            return self.celery_events
        return {LONG: self.long_events}.get(contender.name, self.events)

    @property
    def work(self) -> int:
        """Events published and drained in all: the length of the progress bar."""
        return self.rounds * sum(2 * self.events_of(contender) for contender in self.contenders)


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs a plan. `settings` are by broker; `environment` is what every contender gets besides its own."""

    plan: Plan
    settings: dict[str, Settings]
    environment: dict[str, str]
    effects: Effects
    ledger: Ledger
    ledger_dsn: str
    publishing: Publishing
    logs: Path
    say: Callable[[str], None]
    advance: Advance
    profiles: Path | None = None
    """Where the flame graphs go, if they are wanted."""

    async def run(self) -> list[dict[Contender, float]]:
        """One dict for each round: effects per second, or events published.

        Raises `BenchError` when a contender does not give every event exactly one effect.
        """
        return [await self._round(number) for number in range(1, self.plan.rounds + 1)]

    async def _round(self, number: int) -> dict[Contender, float]:
        of_round = f"round {number} of {self.plan.rounds}"
        order = self.plan.contenders
        random.Random(f"{self.plan.seed}/{number}").shuffle(order)  # noqa: S311 - an order, not a secret
        rates: dict[Contender, float] = {}
        plain = make_events(self.plan.events)
        for contender in order:
            self.say(f"{of_round}: {contender}")
            events = plain
            if contender.name in (CELERY, LONG, TRACED):
                events = make_events(self.plan.events_of(contender), sampled=contender.name == TRACED)
            channel = f"bench{number}-{_short(contender.name)}"
            if contender.name in OF_MONEY:
                rates[contender] = await self._execute(contender, channel, f"{self.plan.seed}/{number}")
                continue
            measure = self._publish if contender.name in IN_THIS_PROCESS else self._drain
            rates[contender] = await measure(contender, channel, events)
        return rates

    async def _publish(self, contender: Contender, channel: str, events: Sequence[WireEvent]) -> float:
        """Events confirmed per second."""
        settings = self.settings[contender.broker]
        publish = self.publishing.relayed if contender.name == RELAY else self.publishing.raw
        rate_per_s = await publish(settings, channel, events)
        self.advance(2 * len(events))
        return rate_per_s

    async def _drain(self, contender: Contender, channel: str, events: Sequence[WireEvent]) -> float:
        """Effects per second."""
        settings, subscriber = self.settings[contender.broker], _short(contender.name)
        if contender.name == CELERY:
            queue = f"{CELERY}.{channel}"
            await asyncio.to_thread(backlog.fill_celery, settings, queue, events, self.advance)
        else:
            await backlog.fill(settings, backlog.subscription(channel, subscriber), events, self.advance)
        await self.effects.clear()
        log = self.logs / f"{channel}-{contender.broker}.log"
        async with self._running(contender, channel, log) as process:
            await self._until_drained(contender, len(events), process, log, self.effects.count)
        claimed = contender.name != INBOX_ALONE
        problems = await self.effects.problems(events, subscriber, claimed=claimed)
        left = await self._unsettled(contender, channel, subscriber)
        if left:
            problems.append(f"{left} events not settled")
        if problems:
            raise BenchError(f"{contender}: {', '.join(problems)} (of {len(events)})\n{_last_lines(log)}")
        return await self.effects.rate_per_s()

    async def _execute(self, contender: Contender, channel: str, seed: str) -> float:
        """Transfers per second."""
        hot = contender.name in (WALLET_HOT, TASKS_HOT)
        accepted = await self.ledger.accept(self.plan.events_of(contender), hot=hot, seed=seed)
        if by_tasks := contender.name in (TASKS, TASKS_HOT):
            settings = self.settings["rabbit"]
            await asyncio.to_thread(backlog.fill_tasks, settings, f"{CELERY}.{channel}", accepted, self.advance)
        else:
            settings = self.settings[contender.broker]
            wanted = backlog.subscription(TransferRequested.channel, _WALLET, TransferRequested.event_type)
            await backlog.fill(settings, wanted, accepted.events, self.advance)
        log = self.logs / f"{channel}-{contender.broker}.log"
        async with self._running(contender, channel, log) as process:
            await self._until_drained(contender, len(accepted.events), process, log, self.ledger.count)
        problems = await self.ledger.problems()
        if not by_tasks and (left := await self._unsettled(contender, TransferRequested.channel, _WALLET)):
            problems.append(f"{left} events not settled")
        if problems:
            raise BenchError(f"{contender}: {', '.join(problems)}\n{_last_lines(log)}")
        return await self.ledger.rate_per_s()

    async def _unsettled(self, contender: Contender, channel: str, subscriber: str) -> int:
        """How many messages the stopped contender would get again; waits a few seconds for 0."""
        left = 0

        async def settled() -> bool:
            nonlocal left
            left = await broker_state.waiting(
                self.settings[contender.broker], [backlog.subscription(channel, subscriber)]
            )
            return not left

        await until(settled, _SETTLED_TIMEOUT_S, _POLL_S)
        return left

    @asynccontextmanager
    async def _running(
        self, contender: Contender, channel: str, log: Path
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """The contender's process; told to stop on leaving, and gone, with its children, afterwards."""
        command = _COMMANDS[contender.name].format(channel=channel, **_fields(contender)).split()
        settings = self.settings.get(contender.broker, self.settings["rabbit"])
        given = {name: getattr(settings, name) for name in settings.model_fields_set}
        environment = {
            **os.environ,
            **self.environment,
            **{f"TANDEM_{name.upper()}": str(value) for name, value in given.items() if value is not None},
            **({"TANDEM_POSTGRES_DSN": self.ledger_dsn} if contender.name in OF_MONEY else {}),
            "TANDEM_ROLES": "consumer",
            **({"TANDEM_OTLP_DIR": str(self.logs)} if contender.name == TRACED else {}),
            "BENCH_QUEUE": f"{CELERY}.{channel}",
            "BENCH_SUBSCRIBER": CELERY,
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, stdin=asyncio.subprocess.DEVNULL, stdout=output,
                stderr=asyncio.subprocess.STDOUT, cwd=REPOSITORY, env=environment, start_new_session=True,
            )  # fmt: skip
        graph = None if self.profiles is None else self.profiles / f"{contender.broker}-{contender.name}.svg"
        try:
            async with profiled(process.pid, graph):
                yield process
                with suppress(ProcessLookupError, TimeoutError):
                    process.terminate()
                    await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _until_drained(
        self,
        contender: Contender,
        wanted: int,
        process: asyncio.subprocess.Process,
        log: Path,
        counted: Callable[[], Awaitable[int]],
    ) -> None:
        clock = asyncio.get_running_loop().time
        count, moved_at = 0, clock()
        while count < wanted:
            await asyncio.sleep(_POLL_S)
            if process.returncode is not None:
                raise BenchError(f"{contender} ended after {count} of {wanted} effects\n{_last_lines(log)}")
            before, count = count, await counted()
            if count > before:
                self.advance(count - before)
                moved_at = clock()
            elif clock() - moved_at > _STALLED_S:
                raise BenchError(f"{contender} stood still at {count} of {wanted} effects\n{_last_lines(log)}")


def _fields(contender: Contender) -> dict[str, str]:
    return {"name": _short(contender.name), "broker": contender.broker}


def _short(name: str) -> str:
    """As a subscriber and a channel may be called."""
    return name.replace(",", "").replace(" ", "-")


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
