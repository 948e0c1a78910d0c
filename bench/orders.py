"""Measures `POST /orders`: how many are placed per second, and how long it is from a request to its effect.

The order service with its relay, the same without outbox rows, and FastAPI that inserts the row and calls Celery's
`.delay`. An order counts when it is answered, and the last when the broker has all events; nothing consumes
meanwhile. Then the consumer, or the worker, does what has come, and requests come at a tenth of that rate: of each
pair's own, so that the faster has more to do.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from statistics import quantiles

import orjson

from bench import backlog
from bench.backlog import Advance, Count
from bench.draining import Draining
from bench.order_tables import OrderTables
from bench.requests import Client, client
from bench.rows import (
    CELERY,
    ORDER_P50,
    ORDER_P99,
    ORDER_TASKS,
    ORDERS,
    TANDEM,
    TASK_P50,
    TASK_P99,
    Contender,
)
from experiment.clock import until

_WARMING = 500
"""Requests before those that are counted: all is loaded, connected and prepared then."""
_WARMING_PACED = 100
"""The same at a rate."""
_SHARE = 0.1
"""Of what a pair can do, at which latencies are measured."""
_PACED_MAX = 500
_PACED_PART = 0.17
_CHANNEL = "order"
_TIMEOUT_S = 90.0
_POLL_S = 0.005

_PERCENTILES = {ORDERS: (ORDER_P50, ORDER_P99), ORDER_TASKS: (TASK_P50, TASK_P99)}
_OF = {percentile: name for name, percentiles in _PERCENTILES.items() for percentile in percentiles}


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent at a rate, when `placed` have been placed already: first what warms up."""

    placed: int
    warming: Sequence[bytes]
    bodies: Sequence[bytes]
    rate_per_s: float


@dataclass(frozen=True, slots=True)
class Orders:
    """Those that take orders, on the tables of one database; effects are where `draining` has them."""

    draining: Draining
    tables: OrderTables

    async def measure(
        self, contender: Contender, wanted: Collection[Contender], channel: str, count: int, advance: Advance
    ) -> dict[Contender, float]:
        """Orders per second, and in milliseconds the latencies of the same pair, if they are `wanted` too.

        Raises `BenchError` when an order is not there, or has not had its effect once.
        """
        runner, name = self.draining.runner, _OF.get(contender.name, contender.name)
        settings, taker = runner.settings[contender.broker], Contender(name, contender.broker)
        percentiles = [Contender(percentile, taker.broker) for percentile in _PERCENTILES.get(name, ())]
        paced = min(_PACED_MAX, int(count * _PACED_PART)) if set(percentiles) & set(wanted) else 0
        warming = _WARMING_PACED if paced else 0
        bodies = self._bodies(_WARMING + count + warming + paced, channel)
        await self.tables.clear()
        await self.draining.effects.clear()
        own = {"TANDEM_POSTGRES_DSN": self.tables.dsn}
        url = f"http://{settings.http_host}:{settings.http_port}"
        async with (
            self._arrivals(taker) as arrived,
            runner.running(taker, channel, own) as taking,
            client(url) as requests,
        ):
            if not await until(requests.is_answered, _TIMEOUT_S, _POLL_S):
                raise taking.failed("it does not answer")
            await requests.saturate(bodies[:_WARMING])
            began_s = time.perf_counter()
            await requests.saturate(bodies[_WARMING : _WARMING + count])
            if not await until(partial(_all, arrived, _WARMING + count), _TIMEOUT_S, _POLL_S):
                raise taking.failed("events have not come to the broker")
            took_s = time.perf_counter() - began_s
            figures = {taker: count / took_s}
            advance(2 * count)
            if paced:
                placed = _WARMING + count
                warm, counted = bodies[placed : placed + warming], bodies[placed + warming :]
                load = Load(placed, warm, counted, _SHARE * count / took_s)
                times_ms = await self._times_ms(taker, channel, requests, load)
                cuts = quantiles(times_ms, n=100, method="inclusive")
                figures |= dict(zip(percentiles, (cuts[49], cuts[98]), strict=True))
        if (there := await self.tables.count()) != len(bodies):
            raise taking.failed(f"{there} orders are there of {len(bodies)}")
        return figures

    @asynccontextmanager
    async def _arrivals(self, taker: Contender) -> AsyncIterator[Count | None]:
        """Counts the events of those that the relay publishes behind the answer; None for the others."""
        if taker.name != ORDERS:
            yield None
            return
        settings = self.draining.runner.settings[taker.broker]
        async with backlog.arrivals(settings, backlog.subscription(_CHANNEL, TANDEM)) as arrived:
            yield arrived

    async def _times_ms(self, taker: Contender, channel: str, requests: Client, load: Load) -> list[float]:
        """From when a request was due to the commit of its effect, for each that is sent."""
        runner, effects = self.draining.runner, self.draining.effects
        count = load.placed + len(load.warming) + len(load.bodies)
        consumer, place = Contender(TANDEM, taker.broker), _CHANNEL
        if taker.name == ORDER_TASKS:
            consumer, place = self.draining.workers(Contender(CELERY, taker.broker)), channel
        settings = runner.settings[taker.broker]
        own = {"TANDEM_HTTP_PORT": str(settings.http_port + 1)}
        async with runner.running(consumer, place, own) as consuming:
            await consuming.until(load.placed, effects.count, _nobody, what="effects")
            await requests.pace(load.warming, load.rate_per_s, f"{channel}-warming")
            due_s = await requests.pace(load.bodies, load.rate_per_s, channel)
            await consuming.until(count, effects.count, _nobody, what="effects")
        committed_s = await effects.committed_at_s()
        if len(committed_s) != count or await effects.count() != count:
            raise consuming.failed("orders without an effect, or with a second one")
        return [1_000 * (committed_s[order_id] - at_s) for order_id, at_s in due_s.items()]

    def _bodies(self, count: int, seed: str) -> list[bytes]:
        draw = random.Random(seed)  # noqa: S311  a load, no secret
        lines = [{"sku": "tea", "quantity": 2, "unit_amount": 450}]
        return [
            orjson.dumps({"user_id": draw.choice(self.tables.users), "currency": "EUR", "lines": lines})
            for _ in range(count)
        ]


async def _all(arrived: Count | None, count: int) -> bool:
    return arrived is None or await arrived() >= count


def _nobody(_count: int) -> None:
    """Whom the progress is told that is none of the bar's."""
