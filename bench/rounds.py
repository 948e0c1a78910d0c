"""Runs the rounds: in each, every contender drains the same backlog, in an order that is drawn anew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import backlog
from bench.answers import Answers
from bench.backlog import Advance
from bench.effects import Effects
from bench.events import WireEvent, make_events
from bench.jobs import JobRuns
from bench.money import Money
from bench.publishing import Publishing
from bench.rows import (
    CELERY,
    INBOX_ALONE,
    LONG,
    OF_ANSWERS,
    OF_EVENTS,
    OF_JOBS,
    OF_MONEY,
    RELAY,
    ROWS,
    SLOW,
    TRACED,
    Contender,
)
from bench.running import Runner, short

_ASKED_MAX = 1_000
"""Requests in a round: as many as a distribution has shares. At fifty a second that is twenty seconds."""
_EVENTS_PER_REQUEST = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: the rows of these names on these brokers.

    In each round a contender drains, or publishes, `events`; Celery and others that are slow, `celery_events`, and
    the one with the long backlog `long_events`. What answers requests is asked less often.
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
        if contender.name in OF_ANSWERS:
            return min(_ASKED_MAX, self.events // _EVENTS_PER_REQUEST)
        if contender.name in SLOW:
            return self.celery_events
        return {LONG: self.long_events}.get(contender.name, self.events)

    @property
    def waiting_jobs(self) -> int:
        """How many jobs wait beside those that run, in the row that is about it."""
        return self.long_events // 3

    @property
    def work(self) -> int:
        """Events published and drained in all: the length of the progress bar."""
        return self.rounds * sum(2 * self.events_of(contender) for contender in self.contenders)


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs a plan."""

    plan: Plan
    runner: Runner
    effects: Effects
    publishing: Publishing
    money: Money
    answers: Answers
    jobs: JobRuns
    say: Callable[[str], None]
    advance: Advance

    async def run(self) -> list[dict[Contender, float]]:
        """One dict for each round: effects, transfers, jobs, chords, idle starts or events per second, or `UNITS`.

        Raises `BenchError` when a contender does not do everything exactly once.
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
            channel = f"bench{number}-{short(contender.name)}"
            count = self.plan.events_of(contender)
            if contender.name in OF_MONEY:
                seed = f"{self.plan.seed}/{number}"
                rates[contender] = await self.money.measure(contender, channel, count, seed, self.advance)
            elif contender.name in OF_ANSWERS:
                seed = f"{self.plan.seed}/{number}"
                rates[contender] = await self.answers.measure(contender, channel, count, seed, self.advance)
            elif contender.name in OF_JOBS:
                rates[contender] = await self.jobs.measure(contender, channel, count, self.advance)
            else:
                events = plain
                if contender.name == TRACED or count != len(plain):
                    events = make_events(count, sampled=contender.name == TRACED)
                measure = self._publish if contender.name in OF_EVENTS else self._drain
                rates[contender] = await measure(contender, channel, events)
        return rates

    async def _publish(self, contender: Contender, channel: str, events: Sequence[WireEvent]) -> float:
        """Events confirmed per second."""
        settings = self.runner.settings[contender.broker]
        publish = self.publishing.relayed if contender.name == RELAY else self.publishing.raw
        rate_per_s = await publish(settings, channel, events)
        self.advance(2 * len(events))
        return rate_per_s

    async def _drain(self, contender: Contender, channel: str, events: Sequence[WireEvent]) -> float:
        """Effects per second."""
        settings, subscriber = self.runner.settings[contender.broker], short(contender.name)
        subscription = backlog.subscription(channel, subscriber)
        if contender.name == CELERY:
            queue = f"{CELERY}.{channel}"
            await asyncio.to_thread(backlog.fill_celery, settings, queue, events, self.advance)
        else:
            await backlog.fill(settings, subscription, events, self.advance)
        await self.effects.clear()
        own = {"TANDEM_OTLP_DIR": str(self.runner.logs)} if contender.name == TRACED else {}
        async with self.runner.running(contender, channel, own) as running:
            await running.until(len(events), self.effects.count, self.advance, what="effects")
        claimed = contender.name != INBOX_ALONE
        problems = await self.effects.problems(events, subscriber, claimed=claimed)
        if left := await backlog.unsettled(settings, subscription):
            problems.append(f"{left} events not settled")
        if problems:
            raise running.failed(f"{', '.join(problems)} (of {len(events)})")
        return await self.effects.rate_per_s()
