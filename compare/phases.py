"""Runs and measures the phases on each side: steady load, and a backlog that is shipped and drained."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from compare.measured import GROWTH, BacklogResult, MeasuredSide, SteadyResult
from deploy.topology import BrokerName
from experiment import broker_state
from experiment.clock import until
from experiment.effects import CONSUMER
from experiment.figures import Latencies, cumulative, rate
from experiment.ledger import Entry, Outcome
from experiment.side import Side
from experiment.stamps import Stages
from experiment.usage import Details, Usage, forget_peak
from experiment.workload import Steady

IDLE_S = 10.0
_RELAY_POLL_S = 0.05
_DRAIN_POLL_S = 0.25
_EVENTS_PER_S_MIN = 200
"""A backlog that moves slower than this is given up and counted as stuck."""


async def measure_idle(sides: Mapping[BrokerName, MeasuredSide], seconds: float) -> None:
    """Measure what both sides use while neither has anything to do."""
    before = {broker: await measured.side.usage() for broker, measured in sides.items()}
    await asyncio.sleep(seconds)
    for broker, measured in sides.items():
        after = await measured.side.usage()
        measured.idle = (after.since(before[broker]), after.at_s - before[broker].at_s)


async def run_steady(
    measured: MeasuredSide, phase: str, steady: Steady | None = None, duration_s: float | None = None
) -> SteadyResult:
    """Run the workload's steady load, or another one, until its last effect is recorded."""
    _, result = await measure_steady(measured, phase, steady, duration_s)
    return result


async def measure_steady(
    measured: MeasuredSide,
    phase: str,
    steady: Steady | None = None,
    duration_s: float | None = None,
    beside: Sequence[Entry] = (),
    *,
    past_http: bool = False,
) -> tuple[list[Entry], SteadyResult]:
    """The same, with the ledger's entries of the phase; what was written `beside` gets its times, too."""
    side = measured.side
    duration_s = duration_s or side.workload.steady.duration_s
    before, drift_s = await side.usage(), side.clock.drift_s()
    send = side.send_past_http if past_http else side.send
    entries, report = await send(side.schedule(phase, duration_s, steady), phase)
    await side.settle()
    after = await side.usage()
    await side.databases.resolve(entries)  # what became of a request that was not answered
    stamps = await measured.read_stamps([*entries, *beside])
    committed = {effect.identity: effect.committed_s for effect in side.effects}
    latencies, stages = Latencies(), Stages()
    for entry in entries:
        if entry.identity is not None and entry.identity in stamps:
            stages.record(entry, stamps[entry.identity], side.clock)
        if entry.durable_s is not None:
            latencies.record(entry.durable_s - entry.intended_s)
        elif entry.identity in committed:
            latencies.record(committed[entry.identity] - entry.intended_s)
        else:
            # Left out, it would make a system that sheds its load look fast.
            latencies.record_endless(_waited_s(side, entry))
    return entries, SteadyResult(
        phase=phase,
        load=report,
        latencies=latencies,
        cpu_s=after.since(before),
        seconds=after.at_s - before.at_s,
        clock_drift_s=side.clock.drift_s() - drift_s,
        stages=stages,
        details=after.details_since(before),
        behind=tuple(_behind(entries, report.started_s + share * duration_s) for share in GROWTH),
    )


def _behind(entries: Iterable[Entry], at_s: float) -> int:
    """How many events were due at a time, and had no durable effect yet."""
    return sum(
        entry.intended_s <= at_s and (entry.durable_s is None or entry.durable_s > at_s) for entry in entries
    )


def _waited_s(side: Side, entry: Entry) -> float:
    """How long an event without effect was waited for."""
    acknowledged = entry.outcome is Outcome.ACKNOWLEDGED
    return side.workload.settle_timeout_s if acknowledged else side.workload.steady.request_timeout_s


async def pile_up(measured: MeasuredSide, phase: str, events: int) -> list[Entry]:
    """Stop the consumer and have so many events wait in the broker."""
    side = measured.side
    await _stop_consumer(side)
    entries = await _write(side, events, phase)
    await _await_relay(side, events)
    return entries


async def run_backlog(measured: MeasuredSide, phase: str) -> BacklogResult:
    """Stop the consumer, let a backlog pile up in the broker, start the consumer and let it drain the backlog.

    PostgreSQL then tidies up at once, or the load that comes next would be measured beside that.
    """
    side = measured.side
    drift_s, events = side.clock.drift_s(), side.workload.backlog.events
    await _stop_consumer(side)
    await asyncio.to_thread(forget_peak, side.runtime, side.broker)
    position = await side.databases.last_effect_position()
    entries = await _write(side, events, phase)
    written = await side.usage()
    await _await_relay(side, events)
    shipped = await side.usage()
    waiting = await broker_state.waiting(side.settings(CONSUMER))
    side.progress.detail("starting the consumer")
    started_s = side.clock.now_s()
    await side.start_consumers()
    first, counted = await _await_drain(side, position, events)
    last = await side.usage()
    await side.settle()
    await measured.read_stamps(entries)
    effects = await side.databases.effects(position)
    durable = {entry.identity: entry.durable_s for entry in entries if entry.durable_s is not None}
    progress = cumulative(durable.get(effect.identity, effect.committed_s) for effect in effects)
    side.progress.detail("vacuum and checkpoint")
    await side.databases.tidy()
    return BacklogResult(
        phase=phase,
        events=events,
        waiting=waiting,
        relay=rate(cumulative(entry.confirmed_s for entry in entries if entry.confirmed_s is not None)),
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
        details=last.details_since(first) if first else Details(),
        relay_details=shipped.details_since(written),
        events_per_batch={
            "sent": _per_batch(entry.relayed_s for entry in entries),
            "received": _per_batch(entry.received_s for entry in entries),
        },
        kept=last.details_since(written),
    )


async def _stop_consumer(side: Side) -> None:
    side.progress.detail("stopping the consumer")
    await side.stop_consumers()


async def _write(side: Side, events: int, phase: str) -> list[Entry]:
    side.progress.detail(f"writing {events:,} events")
    return await side.write_backlog(events, phase)


def _per_batch(times_s: Iterable[float | None]) -> float:
    """How many events share a stamp: a batch has one."""
    stamped = [time_s for time_s in times_s if time_s is not None]
    return round(len(stamped) / len(set(stamped)), 1) if stamped else 0.0


async def _await_relay(side: Side, events: int) -> None:
    """Wait until the outboxes are empty, and every row of them confirmed."""
    services = ("order", "user") if side.workload.backlog.updates_share else ("order",)

    async def shipped() -> bool:
        ends = [await side.databases.outbox_ends(service) for service in services]
        if left := sum(last - first + 1 for first, last in filter(None, ends)):
            side.progress.detail(f"the relays have {left:,} events to ship")
        return not left

    await until(shipped, _patience_s(side, events), _RELAY_POLL_S)


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
