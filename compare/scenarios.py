"""Runs what else can happen under a steady load: to the orders, or beside them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from statistics import median
from typing import Any

from compare.ladder import P99_SAMPLES_MIN
from compare.measured import MeasuredSide, ScenarioResult
from compare.phases import measure_steady, pile_up
from experiment import broker_state
from experiment.beside import Company, Told, asked_requests, more_subscribers, submitted_jobs
from experiment.effects import CONSUMER
from experiment.figures import Latencies
from experiment.ledger import Entry
from experiment.side import Side
from experiment.stamping import Planted, planted
from experiment.workload import (
    Bursts,
    FanOut,
    JobGraphs,
    KilledConsumer,
    LiveDrain,
    PastHttp,
    Poison,
    RequestReply,
    Scenario,
    SlowConsumer,
    Steady,
)

DEFINITION = (
    "the steady load with something that happens meanwhile, after the rounds; latencies of all rounds together, "
    "from the intended time to the durable effect, a 99th percentile only from 1,000 samples; found: medians of "
    "the rounds; worst by second: the highest latency of the events due in each second, of the last round; "
    "beside: from the intended time of a request to its reply, of a job to the commit of its end, of an event "
    "of an order to the commit of its last effect (PostgreSQL notes a commit before it flushes), of all rounds"
)
_KILL_AFTER_SHARE = 1 / 3


async def run_scenario(measured: MeasuredSide, asked: Scenario, number: int) -> ScenarioResult:
    """Run a scenario once. Its events are checked with all others; poison is not among them."""
    side, name = measured.side, f"{asked.kind}-{number}"
    steady = side.workload.steady if asked.orders_per_s is None else side.workload.steady.at(asked.orders_per_s)
    if isinstance(asked, Bursts):
        steady = steady.model_copy(update={"arrivals": "bursts"})
    if isinstance(asked, LiveDrain):
        return await _live_drain(measured, asked, steady, name)
    if isinstance(asked, Poison):
        return await _poison(measured, asked, steady, name)
    if isinstance(asked, KilledConsumer):
        return await _killed(measured, asked, steady, name)
    if isinstance(asked, RequestReply | JobGraphs | FanOut):
        return await _beside(measured, asked, steady, name)
    past_http = isinstance(asked, PastHttp)
    slowdown = asked.slowdown / (1 - asked.slowdown) if isinstance(asked, SlowConsumer) else 0.0
    with planted(measured.stamps.directory, Planted(slowdown=slowdown)):
        entries, result = await measure_steady(measured, name, steady, asked.duration_s, past_http=past_http)
    return ScenarioResult(asked.kind, result, {}, _worst(entries, result.load.started_s))


async def _live_drain(measured: MeasuredSide, asked: LiveDrain, steady: Steady, name: str) -> ScenarioResult:
    side = measured.side
    waiting = await pile_up(measured, f"{name}-backlog", asked.events)
    began_s = side.clock.now_s()
    await side.start_consumers()
    entries, result = await measure_steady(measured, name, steady, asked.duration_s, beside=waiting)
    done_s = max((entry.durable_s for entry in waiting if entry.durable_s is not None), default=None)
    found = {} if done_s is None else {"drained_s": done_s - began_s}
    return ScenarioResult(asked.kind, result, found, _worst(entries, result.load.started_s))


async def _poison(measured: MeasuredSide, asked: Poison, steady: Steady, name: str) -> ScenarioResult:
    before = await _letters(measured.side)
    with planted(measured.stamps.directory, Planted(poison=asked.share)):
        entries, result = await measure_steady(measured, name, steady, asked.duration_s)
    found = {"dead_letters": float(await _letters(measured.side) - before)}
    return ScenarioResult(asked.kind, result, found, _worst(entries, result.load.started_s))


async def _letters(side: Side) -> int:
    return len(await broker_state.dead_letter_identities(side.settings(CONSUMER)))


async def _killed(measured: MeasuredSide, asked: KilledConsumer, steady: Steady, name: str) -> ScenarioResult:
    side = measured.side
    killed_s = 0.0

    async def kill() -> None:
        nonlocal killed_s
        await asyncio.sleep(asked.duration_s * _KILL_AFTER_SHARE)
        for consumer in side.consumers:
            await asyncio.to_thread(side.runtime.processes.kill, consumer)
        killed_s = side.clock.now_s()  # what it committed before that is no sign of its successor

    killing = asyncio.create_task(kill())
    try:
        entries, result = await measure_steady(measured, name, steady, asked.duration_s)
        await killing
    finally:
        killing.cancel()
    after = [entry.durable_s for entry in entries if entry.durable_s is not None and entry.durable_s > killed_s]
    found = {"silent_s": min(after) - killed_s} if after else {}
    return ScenarioResult(asked.kind, result, found, _worst(entries, result.load.started_s))


async def _beside(
    measured: MeasuredSide, asked: RequestReply | JobGraphs | FanOut, steady: Steady, name: str
) -> ScenarioResult:
    measured.side.progress.detail("starting what runs beside the orders")
    async with _company(measured.side, asked, name) as company:
        loading = asyncio.create_task(company.load(asked.duration_s))
        try:
            entries, result = await measure_steady(measured, name, steady, asked.duration_s)
            await loading
        finally:
            loading.cancel()
            await asyncio.wait([loading])
        told = await company.told(entries)
    measured.beside_wrong += [f"{name}: {each}" for each in told.wrong]
    return ScenarioResult(asked.kind, result, {}, _worst(entries, result.load.started_s), told)


def _company(
    side: Side, asked: RequestReply | JobGraphs | FanOut, name: str
) -> AbstractAsyncContextManager[Company]:
    if isinstance(asked, RequestReply):
        return asked_requests(side, asked, name)
    if isinstance(asked, JobGraphs):
        return submitted_jobs(side, asked, name)
    return more_subscribers(side, asked)


def _worst(entries: Sequence[Entry], started_s: float) -> tuple[float | None, ...]:
    """The highest latency, in ms, of what was due in each second."""
    worst: dict[int, float] = {}
    for entry in entries:
        if entry.durable_s is not None:
            second = int(entry.intended_s - started_s)
            worst[second] = max(worst.get(second, 0.0), 1_000 * (entry.durable_s - entry.intended_s))
    return tuple(round(worst[n], 1) if n in worst else None for n in range(max(worst, default=-1) + 1))


def figures(measured: MeasuredSide) -> list[dict[str, Any]]:
    """What each scenario showed, over its rounds, as plain data; none of an unsound side."""
    if not measured.sound:
        return []
    kinds = dict.fromkeys(result.kind for result in measured.scenarios)
    return [_figure(kind, [each for each in measured.scenarios if each.kind == kind]) for kind in kinds]


def _figure(kind: str, results: Sequence[ScenarioResult]) -> dict[str, Any]:
    together = Latencies()
    for result in results:
        together.add(result.steady.latencies)
    enough = together.count >= P99_SAMPLES_MIN
    names = dict.fromkeys(name for result in results for name in result.found)
    return {
        "kind": kind,
        "rounds": len(results),
        "samples": together.count,
        "p50_ms": together.percentile_ms(50),
        "p99_ms": together.percentile_ms(99) if enough else None,
        "max_ms": together.percentile_ms(100),
        "found": {
            name: round(median(each.found[name] for each in results if name in each.found), 2) for name in names
        },
        "worst_ms_by_second": list(results[-1].worst_ms),
        "beside": _beside_figure([result.beside for result in results if result.beside is not None]),
    }


def _beside_figure(told: Sequence[Told]) -> dict[str, Any] | None:
    if not told:
        return None
    together, counts = Latencies(), Counter[str]()
    for one in told:
        together.add(one.latencies)
        counts.update(one.counts)
    return {
        "samples": together.count,
        "p50_ms": together.percentile_ms(50),
        "p99_ms": together.percentile_ms(99) if together.count >= P99_SAMPLES_MIN else None,
        "max_ms": together.percentile_ms(100),
        "counts": dict(counts),
    }
