"""What the parts of an event's way take by themselves: the limits of what the pipeline stands on, beside it.

Each part is given batches as large as the pipeline's, one after the other: the JSON is read; Redis claims a batch
and is told that it is done; PostgreSQL is given its rows, and commits; a client library publishes, and consumes
and acknowledges without any effect, by itself and below our adapter. The first three are the hand-written loop's
own code (`bench.contenders.by_hand`), the least that does it. The pipeline does all but publishing, in a process
of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import psutil
import uvloop

from bench import backlog
from bench.contenders import by_hand
from bench.draining import Draining
from bench.errors import BenchError
from bench.events import OrderPlaced, WireEvent, make_events
from bench.rows import ALONE, Contender
from bench.running import Running, short
from deploy.native import BrokerName, Runtime
from experiment.layers import AS_TANDEM, MODES, raw_client
from experiment.usage import take_usage
from shared.broker import Delivery, Message, Settlement, create_broker
from shared.settings import Settings

JSON, REDIS, POSTGRES = "JSON read", "Redis claims", "PostgreSQL commits"
PUBLISHED, CONSUMED, ADAPTED = "library publishes", "library consumes", "adapter consumes"
PIPELINE = "pipeline, all of it"
PARTS = (JSON, REDIS, POSTGRES, PUBLISHED, CONSUMED, ADAPTED, PIPELINE)
_CHANNEL = "limits"
_WHOLE_TIMES = 4
"""So many times the events for the pipeline, which takes a moment to be told that they are there."""
_TIMEOUT_S = 90.0
_SERVERS_WITH_EITHER_BROKER = ("postgres", "redis")
"""They are there besides the broker, whichever it is."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Microseconds for an event: how long it took, and the CPU time of Python's process and of each server."""

    us: float
    python_us: float
    server_us: Mapping[str, float]


Limits = Mapping[tuple[str, str], Taken]
"""By part and broker: medians of the rounds."""


@dataclass(slots=True)
class _Marks:
    """What was done when, from the end of the first batch on."""

    wanted: int
    at: list[tuple[float, float, int]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def mark(self, count: int) -> None:
        """So many more are done."""
        done = count + (self.at[-1][2] if self.at else 0)
        self.at.append((time.perf_counter(), time.process_time(), done))
        if done >= self.wanted:
            self.ended.set()

    def taken(self, spent_s: Mapping[str, float]) -> Taken:
        """Of one event, once all are done; the servers did all of them. Raises `BenchError` for a single batch."""
        (began, cpu_began, first), (ended, cpu_ended, last) = self.at[0], self.at[-1]
        if last == first:
            raise BenchError("all of it was one batch: there is nothing to measure, use more --events")
        servers = {name: _us(cpu_s, last) for name, cpu_s in spent_s.items()}
        return Taken(_us(ended - began, last - first), _us(cpu_ended - cpu_began, last - first), servers)


@dataclass(frozen=True, slots=True)
class Measuring:
    """Measures every part, on the servers and tables of `draining`."""

    runtime: Runtime
    draining: Draining
    say: Callable[[str], None]

    async def run(self, brokers: Sequence[str], events: int, rounds: int) -> Limits:
        """Raises `BenchError` when a part stands still."""
        taken: dict[tuple[str, str], list[Taken]] = {}
        for number in range(1, rounds + 1):
            for broker in brokers:
                for part in PARTS:
                    self.say(f"limits, round {number} of {rounds}: {part} on {broker}")
                    one = await self._part(part, broker, f"{_CHANNEL}{number}", make_events(events))
                    taken.setdefault((part, broker), []).append(one)
        return {key: _median(each) for key, each in taken.items()}

    async def _part(self, part: str, broker: str, channel: str, events: Sequence[WireEvent]) -> Taken:
        await self.draining.effects.clear()
        if part == PIPELINE:
            return await self._whole(broker, channel, _WHOLE_TIMES * len(events))
        # On a loop as the services have it, which this process has not.
        return await asyncio.to_thread(uvloop.run, self._alone(part, broker, channel, events))

    async def _alone(self, part: str, broker: str, channel: str, events: Sequence[WireEvent]) -> Taken:
        settings, marks = self.draining.runner.settings[broker], _Marks(len(events))
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                if part == ADAPTED:
                    work = await _by_adapter(settings, f"{channel}-adapter", events, marks)
                elif part in {PUBLISHED, CONSUMED}:
                    work = _by_library(part, settings, events, marks)
                else:
                    work = self._by_hand(part, settings, events, marks)
                before = self._used(broker)
                await work()
        except TimeoutError as error:
            raise BenchError(f"{part} on {broker} stood still") from error
        return marks.taken(_spent(before, self._used(broker)))

    def _by_hand(
        self, part: str, settings: Settings, events: Sequence[WireEvent], marks: _Marks
    ) -> Callable[[], Awaitable[None]]:
        own = settings.model_copy(update={"postgres_dsn": self.draining.effects.dsn})
        batches = _batches([event.body for event in events], settings.batch_max)
        known = [[*map(by_hand.read, batch)] for batch in batches]

        async def work() -> None:
            async with by_hand.Recorder(own, f"{_CHANNEL}-alone", inbox_alone=part != REDIS) as recorder:
                marks.mark(0)
                for bodies, placed in zip(batches, known, strict=True):
                    if part == JSON:
                        [*map(by_hand.read, bodies)]
                    elif part == REDIS:
                        await recorder.mark_done(await recorder.claimed(recorder.by_keys(placed)))
                    else:
                        await recorder.write(placed)
                    marks.mark(len(placed))

        return work

    async def _whole(self, broker: str, channel: str, count: int) -> Taken:
        """By one process, which is there and stands still until all events are: as in the row `two-processes`."""

        def used(running: Running) -> tuple[float, Mapping[str, float]]:
            process = psutil.Process(running.processes[0].pid)
            return sum(process.cpu_times()[:2]), self._used(broker)

        subscription = backlog.subscription(f"{channel}-whole", short(ALONE))
        _, (own_before, before), (own, after) = await self.draining.woken(
            Contender(ALONE, broker), subscription, make_events(count), lambda _count: None, used
        )
        servers = {name: _us(cpu_s, count) for name, cpu_s in _spent(before, after).items()}
        return Taken(1e6 / await self.draining.effects.rate_per_s(), _us(own - own_before, count), servers)

    def _used(self, broker: str) -> Mapping[str, float]:
        """CPU seconds of the servers so far."""
        used = take_usage(self.runtime, "kafka" if broker == "kafka" else "rabbit", time.monotonic()).cpu_s
        return {name: used[name] for name in (*_SERVERS_WITH_EITHER_BROKER, broker)}


def _by_library(
    part: str, settings: Settings, events: Sequence[WireEvent], marks: _Marks
) -> Callable[[], Awaitable[None]]:
    """Publishes, or consumes what was published so."""
    broker: BrokerName = "kafka" if settings.broker == "kafka" else "rabbit"
    mode = MODES[AS_TANDEM[broker]]
    client = raw_client(settings, mode)
    messages = [Message(mode.name, OrderPlaced.event_type, event.key, event.body) for event in events]

    async def work() -> None:
        async with client:
            if part == CONSUMED:
                await client.consume(list(range(mode.places)), marks.mark, marks.ended)
                return
            await client.declare()
            await client.publish(messages, marks.mark)

    return work


async def _by_adapter(
    settings: Settings, channel: str, events: Sequence[WireEvent], marks: _Marks
) -> Callable[[], Awaitable[None]]:
    """Acknowledges what comes, without any effect; all of it is there."""
    subscription = backlog.subscription(channel, "adapter")
    await backlog.fill(settings, subscription, events, lambda _count: None)

    async def acknowledge(deliveries: Sequence[Delivery]) -> Sequence[Settlement]:
        marks.mark(len(deliveries))
        return [Settlement.ACK] * len(deliveries)

    async def work() -> None:
        async with create_broker(settings, f"bench-{channel}") as broker:
            await broker.subscribe(subscription, acknowledge)
            await marks.ended.wait()

    return work


def _batches(bodies: Sequence[bytes], size: int) -> list[Sequence[bytes]]:
    return [bodies[start : start + size] for start in range(0, len(bodies), size)]


def _spent(before: Mapping[str, float], after: Mapping[str, float]) -> Mapping[str, float]:
    return {name: used - before[name] for name, used in after.items()}


def _us(seconds: float, count: int) -> float:
    return 1e6 * seconds / count


def _median(rounds: Sequence[Taken]) -> Taken:
    servers = {name: median(each.server_us[name] for each in rounds) for name in rounds[0].server_us}
    return Taken(median(each.us for each in rounds), median(each.python_us for each in rounds), servers)
