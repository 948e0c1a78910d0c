"""Warms a side up until it is stationary: until its median latency hardly changes from one window to the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from statistics import median

from compare.measured import MeasuredSide, WarmUpResult
from compare.phases import measure_steady
from experiment.ledger import Entry
from experiment.workload import Workload

WITHIN = 0.2
"""By so much the medians of two windows may differ. That of some 200 latencies varies by 7 % on a calm machine, so
that two of them are this far apart once in 20 times, and the warm-up is then a window longer."""
SAMPLES_MIN = 100
"""Latencies in a window, without which its median says little."""


async def warm_up(measured: MeasuredSide) -> None:
    """Run the same load until it is stationary, or for as long as is allowed, then a backlog; figures are thrown
    away, events are checked."""
    side, planned = measured.side, measured.side.workload.warm_up
    if planned.steady_s:
        measured.warm_up = await _run_windows(measured)
    if planned.backlog_events:
        await side.write_backlog(planned.backlog_events, "warm-up")
    await side.settle()
    await measured.read_stamps(side.entries)
    await side.databases.tidy()


def windows_of(workload: Workload) -> tuple[float, int]:
    """How long a window is, in seconds, and how many there are at least; one where two would be too long, so that
    nothing can be told."""
    asked = workload.warm_up
    if not asked.steady_s:
        return 0.0, 0
    window_s = max(asked.steady_s / 2, SAMPLES_MIN / workload.steady.events_per_s)
    return (window_s, 2) if 2 * window_s <= asked.longest_s else (asked.steady_s, 1)


def stationary(medians: Sequence[float]) -> bool | None:
    """Whether the last two medians are close to each other; None: there are no two."""
    if len(medians) < 2:
        return None
    low, high = sorted(medians[-2:])
    return high <= (1 + WITHIN) * low < inf


def goes_on(medians: Sequence[float], ran_s: float, window_s: float, longest_s: float) -> bool:
    """Whether the warm-up needs another window after these, and may have it."""
    return stationary(medians) is False and ran_s + window_s <= longest_s


def medians_of(entries: Iterable[Entry], started_s: float, window_s: float, count: int) -> list[float]:
    """The median latency in ms of what was due in each of so many windows, and after the last.

    What has no effect has taken for ever.
    """
    latencies_ms: list[list[float]] = [[] for _ in range(count)]
    for entry in entries:
        which = min(count - 1, max(0, int((entry.intended_s - started_s) / window_s)))
        latencies_ms[which].append(1_000 * ((entry.durable_s or inf) - entry.intended_s))
    return [median(each) if each else inf for each in latencies_ms]


async def _run_windows(measured: MeasuredSide) -> WarmUpResult:
    asked = measured.side.workload.warm_up
    window_s, least = windows_of(measured.side.workload)
    ran_s, medians = 0.0, list[float]()
    while True:
        count = 1 if medians else least
        name = f"warm-up-{len(medians) + 1}" if medians else "warm-up"
        registered = [] if medians else list(measured.side.entries)
        entries, result = await measure_steady(measured, name, None, count * window_s, beside=registered)
        medians += medians_of(entries, result.load.started_s, window_s, count)
        ran_s += count * window_s
        if not goes_on(medians, ran_s, window_s, asked.longest_s):
            return WarmUpResult(ran_s, tuple(medians), stationary(medians))
        measured.side.progress.detail(f"not stationary after {ran_s:.0f} s")
