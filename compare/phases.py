"""Runs and measures the phases on each side: warm-up, steady load, and a backlog that is shipped and drained."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from experiment import broker_state
from experiment.checker import Verdict
from experiment.clock import until
from experiment.effects import CONSUMER, outbox_progress
from experiment.figures import Latencies, RateFigure, cumulative, rate
from experiment.ledger import Entry, Outcome
from experiment.load import LoadReport
from experiment.side import Side
from experiment.usage import Usage

_RELAY_POLL_S = 0.05
_DRAIN_POLL_S = 0.25
_EVENTS_PER_S_MIN = 200
"""A backlog that moves slower than this is given up and counted as stuck."""


@dataclass(frozen=True, slots=True)
class SteadyResult:
    """What one phase of steady load showed.

    `cpu_s` is by group, `seconds` long: from the first request until every effect is there.
    """

    phase: str
    load: LoadReport
    latencies: Latencies
    cpu_s: dict[str, float]
    seconds: float
    clock_drift_s: float


@dataclass(frozen=True, slots=True)
class BacklogResult:
    """What one backlog showed.

    `waiting` is what the broker held when the consumer was started, `first_effect_s` the time from that start
    to the first effect. `cpu_s`, `cpu_effects` and `seconds` belong together: from soon after the first effect
    to the last; so do `relay_cpu_s` and `relay_seconds`: from when the backlog was written until it was shipped.
    """

    phase: str
    events: int
    waiting: int
    relay: RateFigure
    relay_cpu_s: dict[str, float]
    relay_seconds: float
    drain: RateFigure
    whole: RateFigure
    first_effect_s: float | None
    cpu_s: dict[str, float]
    cpu_effects: int
    seconds: float
    broker_memory_bytes: int
    clock_drift_s: float


@dataclass(slots=True)
class MeasuredSide:
    """A side and what was measured on it, in the order of the rounds."""

    side: Side
    steady: list[SteadyResult] = field(default_factory=list)
    backlogs: list[BacklogResult] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """What the last check found."""
        return self.side.verdict


async def warm_up(side: Side) -> None:
    """Run the same load for a short time; its figures are thrown away, its events are checked."""
    planned = side.workload.warm_up
    if planned.steady_s:
        await side.send(side.schedule("warm-up", planned.steady_s), "warm-up")
    if planned.backlog_events:
        await side.write_backlog(planned.backlog_events, "warm-up")
    await side.settle()


async def run_steady(side: Side, phase: str) -> SteadyResult:
    """Run the steady load, until its last effect is recorded."""
    before, drift_s = await side.usage(), side.clock.drift_s()
    entries, report = await side.send(side.schedule(phase, side.workload.steady.duration_s), phase)
    await side.settle()
    after = await side.usage()
    await side.databases.resolve(entries)  # what became of a request that was not answered
    committed = {effect.identity: effect.committed_s for effect in side.effects}
    latencies = Latencies()
    for entry in entries:
        if entry.identity in committed:
            latencies.record(committed[entry.identity] - entry.intended_s)
        else:
            # Left out, it would make a system that sheds its load look fast.
            latencies.record_endless(_waited_s(side, entry))
    return SteadyResult(
        phase=phase,
        load=report,
        latencies=latencies,
        cpu_s=after.since(before),
        seconds=after.at_s - before.at_s,
        clock_drift_s=side.clock.drift_s() - drift_s,
    )


def _waited_s(side: Side, entry: Entry) -> float:
    """How long an event without effect was waited for."""
    acknowledged = entry.outcome is Outcome.ACKNOWLEDGED
    return side.workload.settle_timeout_s if acknowledged else side.workload.steady.request_timeout_s


async def run_backlog(side: Side, phase: str) -> BacklogResult:
    """Stop the consumer, let a backlog pile up in the broker, start the consumer and let it drain the backlog."""
    drift_s, events = side.clock.drift_s(), side.workload.backlog.events
    side.progress.detail("stopping the consumer")
    await asyncio.to_thread(side.runtime.processes.stop, side.process(CONSUMER))
    position = await side.databases.last_effect_position()
    side.progress.detail(f"writing {events:,} events")
    await side.write_backlog(events, phase)
    written = await side.usage()
    relay = await _await_relay(side, events)
    shipped = await side.usage()
    waiting = await broker_state.waiting(side.settings(CONSUMER))
    side.progress.detail("starting the consumer")
    started_s = side.clock.now_s()
    await asyncio.to_thread(side.runtime.processes.start, side.process(CONSUMER), wait=False)
    first, counted = await _await_drain(side, position, events)
    last = await side.usage()
    effects = await side.databases.effects(position)
    progress = cumulative(effect.committed_s for effect in effects)
    result = BacklogResult(
        phase=phase,
        events=events,
        waiting=waiting,
        relay=relay,
        relay_cpu_s=shipped.since(written),
        relay_seconds=shipped.at_s - written.at_s,
        drain=rate(progress),
        whole=rate(progress, low=0.0, high=1.0),
        first_effect_s=progress[0].at_s - started_s if progress else None,
        cpu_s=last.since(first) if first else {},
        cpu_effects=len(effects) - counted,
        seconds=last.at_s - first.at_s if first else 0.0,
        broker_memory_bytes=last.broker_memory_bytes,
        clock_drift_s=side.clock.drift_s() - drift_s,
    )
    await side.settle()
    return result


async def _await_relay(side: Side, events: int) -> RateFigure:
    """How fast the relay shipped the backlog, once its outbox is empty."""
    samples: list[tuple[float, tuple[int, int] | None]] = []

    async def shipped() -> bool:
        ends = await side.databases.outbox_ends()
        samples.append((side.clock.now_s(), ends))
        if ends is not None:
            side.progress.detail(f"the relay has {ends[1] - ends[0] + 1:,} events to ship")
        return ends is None

    await until(shipped, _patience_s(side, events), _RELAY_POLL_S)
    return rate(outbox_progress(samples))


async def _await_drain(side: Side, position: int, events: int) -> tuple[Usage | None, int]:
    """Usage soon after the first effect, and how many effects there were then."""
    first: Usage | None = None
    counted = 0

    async def drained() -> bool:
        nonlocal first, counted
        count = await side.databases.effect_count(position)
        if count and first is None:
            first, counted = await side.usage(), await side.databases.effect_count(position)
        side.progress.detail(f"{count:,} of {events:,} effects")
        return count >= events

    await until(drained, _patience_s(side, events), _DRAIN_POLL_S)
    return first, counted


def _patience_s(side: Side, events: int) -> float:
    return side.workload.settle_timeout_s + events / _EVENTS_PER_S_MIN
