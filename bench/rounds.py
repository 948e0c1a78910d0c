"""Runs the rounds: in each, every contender works on the same backlog, in an order that is drawn anew."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import median

from bench.answers import Answers
from bench.backlog import Advance
from bench.draining import Draining
from bench.events import WireEvent, make_events
from bench.jobs import JobRuns
from bench.money import Money
from bench.orders import Orders
from bench.plan import Plan
from bench.publishing import Publishing
from bench.rows import (
    ALONE,
    IDLE,
    LONG,
    LONG_PEAK,
    OF_ANSWERS,
    OF_EVENTS,
    OF_JOBS,
    OF_MONEY,
    OF_ORDERS,
    PEAK,
    RELAY,
    TANDEM,
    UNTRACED,
    Contender,
)
from bench.running import short


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs a plan."""

    plan: Plan
    draining: Draining
    publishing: Publishing
    money: Money
    answers: Answers
    jobs: JobRuns
    orders: Orders
    say: Callable[[str], None]
    advance: Advance
    took_s: defaultdict[Contender, float] = field(default_factory=lambda: defaultdict(float))
    """Of all rounds, with starting, publishing and checking."""

    async def run(self) -> list[dict[Contender, float]]:
        """One dict for each round: effects, orders, transfers, jobs, … per second, or what `UNITS` says.

        Raises `BenchError` when a contender does not do everything exactly once.
        """
        if self.plan.trial_events:
            self.say("which of Celery's pools is the fastest")
            await self.draining.try_pools(self.plan.trial_events)
        return [await self._round(number) for number in range(1, self.plan.rounds + 1)]

    async def _round(self, number: int) -> dict[Contender, float]:
        of_round = f"round {number} of {self.plan.rounds}"
        order, wanted = self.plan.order_of(number), set(self.plan.contenders)
        turns: defaultdict[Contender, list[float]] = defaultdict(list)
        make = cache(make_events)  # of as many events, contenders of a round get the same
        for place, contender in enumerate(order, start=1):
            self.say(f"{of_round}: {contender}")
            channel = f"bench{number}-{place}-{short(contender.name)}"
            rates: dict[Contender, float] = {}
            count, began_s = self.plan.events_of(contender), time.monotonic()
            if contender.name in OF_MONEY:
                seed = f"{self.plan.seed}/{number}"
                rates[contender] = await self.money.measure(contender, channel, count, seed, self.advance)
            elif contender.name in OF_ANSWERS:
                seed = f"{self.plan.seed}/{number}"
                rates[contender] = await self.answers.measure(contender, channel, count, seed, self.advance)
            elif contender.name in OF_JOBS:
                rates[contender] = await self.jobs.measure(contender, channel, count, self.advance)
            elif contender.name in OF_ORDERS:
                rates = await self.orders.measure(contender, wanted, channel, count, self.advance)
            else:
                events = make(count, traced=contender.name != UNTRACED)
                measure = self._publish if contender.name in OF_EVENTS else self._drain
                rates = await measure(contender, channel, events)
            for measured, figure in rates.items():
                turns[measured].append(figure)
            self.took_s[contender] += time.monotonic() - began_s
        wanted |= {Contender(IDLE, contender.broker) for contender in order}
        return {contender: median(figures) for contender, figures in turns.items() if contender in wanted}

    async def _publish(
        self, contender: Contender, channel: str, events: Sequence[WireEvent]
    ) -> dict[Contender, float]:
        """Events confirmed per second."""
        settings = self.draining.runner.settings[contender.broker]
        publish = self.publishing.relayed if contender.name == RELAY else self.publishing.raw
        rate_per_s = await publish(settings, channel, events)
        self.advance(2 * len(events))
        return {contender: rate_per_s}

    async def _drain(
        self, contender: Contender, channel: str, events: Sequence[WireEvent]
    ) -> dict[Contender, float]:
        """Effects per second, and what a row is told besides."""
        if contender.name == ALONE:
            drained, cores = await self.draining.measure_idle(contender, channel, events, self.advance)
            return {contender: drained.rate_per_s, Contender(IDLE, contender.broker): cores}
        drained = await self.draining.measure(contender, channel, events, self.advance)
        peaks = {TANDEM: PEAK, LONG: LONG_PEAK}
        besides = [Contender(peaks[name], contender.broker) for name in peaks if name == contender.name]
        return {contender: drained.rate_per_s, **dict.fromkeys(besides, drained.peak_mib)}
