"""Measures how fast a contender drains a backlog of events, and checks that each has had its effect once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench import backlog, idle
from bench.backlog import Advance
from bench.commands import COMMANDS, FROZEN_MAX_S, POOLS
from bench.effects import Effects
from bench.events import WireEvent, make_events
from bench.rows import ALONE, CELERY, FULL, INBOX_ALONE, PAIR, Contender
from bench.running import Runner, Running, short
from shared.broker import Subscription

SeenT = TypeVar("SeenT")


@dataclass(frozen=True, slots=True)
class Drained:
    """How fast a backlog was drained, and the most memory that the contender's first process has had."""

    rate_per_s: float
    peak_mib: float


@dataclass(slots=True)
class Draining:
    """Contenders that drain, on the tables of one database; `full` has the same, and an inbox with a past."""

    runner: Runner
    effects: Effects
    full: Effects
    pool: str | None = None
    """Of Celery's, the one that its figures are of; None until a trial has said which is the fastest."""

    async def measure(
        self, contender: Contender, channel: str, events: Sequence[WireEvent], advance: Advance
    ) -> Drained:
        """How it went. Raises `BenchError` when a contender does not do everything exactly once."""
        effects = self.full if contender.name == FULL else self.effects
        await effects.clear()
        if contender.name == CELERY or contender.name in POOLS:
            return await self._tasks(contender, channel, events, advance)
        settings, subscriber = self.runner.settings[contender.broker], short(contender.name)
        subscription = backlog.subscription(channel, subscriber)
        own = {"TANDEM_POSTGRES_DSN": effects.dsn}
        if contender.name in {PAIR, ALONE}:
            running, _, peak_mib = await self.woken(contender, subscription, events, advance, Running.peak_mib)
        else:
            await backlog.fill(settings, subscription, events, advance)
            async with self.runner.running(contender, channel, own) as running:
                await running.until(len(events), effects.count, advance, what="effects")
                peak_mib = running.peak_mib()
        problems = await effects.problems(events, subscriber, claimed=contender.name != INBOX_ALONE)
        if left := await backlog.unsettled(settings, subscription):
            problems.append(f"{left} events not settled")
        if problems:
            raise running.failed(f"{', '.join(problems)} (of {len(events)})")
        return Drained(await effects.rate_per_s(), peak_mib)

    async def measure_idle(
        self, contender: Contender, channel: str, events: Sequence[WireEvent], advance: Advance
    ) -> tuple[Drained, float]:
        """The same, and how many of the machine's cores were idle from the first commit to the last."""
        async with idle.watching() as watched:
            drained = await self.measure(contender, channel, events, advance)
        return drained, watched.cores(*await self.effects.began_and_ended_s())

    async def woken(
        self,
        contender: Contender,
        subscription: Subscription,
        events: Sequence[WireEvent],
        advance: Advance,
        look: Callable[[Running], SeenT],
    ) -> tuple[Running, SeenT, SeenT]:
        """Processes that consume, and stand still until the whole backlog is there: how long one takes to come, or
        to publish, is no part of what is measured. And what `look` saw before they woke and at the end."""
        settings = self.runner.settings[contender.broker]
        async with self.runner.running(contender, subscription.channel) as running:
            count = len(running.processes)
            if not await backlog.until_consumed(settings, subscription, count):
                raise running.failed("not all of its processes consume")
            with running.frozen():
                await backlog.fill(settings, subscription, events, advance)
                if not await backlog.are_consuming(settings, subscription, count):
                    raise running.failed(f"frozen for longer than the broker keeps it, up to {FROZEN_MAX_S} s")
                at_waking = look(running)
            await running.until(len(events), self.effects.count, advance, what="effects")
            return running, at_waking, look(running)

    async def _tasks(
        self, contender: Contender, channel: str, events: Sequence[WireEvent], advance: Advance
    ) -> Drained:
        settings, queue = self.runner.settings[contender.broker], f"{CELERY}.{channel}"
        await asyncio.to_thread(backlog.fill_celery, settings, queue, events, advance)
        async with self.runner.running(self.workers(contender), channel) as running:
            await running.until(len(events), self.effects.count, advance, what="effects")
            peak_mib = running.peak_mib()
        problems = await self.effects.problems(events, CELERY)
        if left := await backlog.unsettled(settings, backlog.subscription(channel, CELERY)):
            problems.append(f"{left} tasks not settled")
        if problems:
            raise running.failed(f"{', '.join(problems)} (of {len(events)})")
        return Drained(await self.effects.rate_per_s(), peak_mib)

    def workers(self, contender: Contender) -> Contender:
        """Celery's workers, in the pool that is the fastest as far as is known."""
        if contender.name in COMMANDS:
            return contender
        return Contender(self.pool or next(iter(POOLS)), contender.broker)

    async def try_pools(self, count: int) -> None:
        """Have each of Celery's pools do so many tasks, and keep the fastest."""
        rates = {}
        for number, name in enumerate(POOLS):
            contender, channel = Contender(name, "rabbit"), f"trial{number}"
            drained = await self.measure(contender, channel, make_events(count), lambda _count: None)
            rates[name] = drained.rate_per_s
        self.pool = max(rates, key=lambda name: rates[name])
