"""Loads each side at several rates: searches for what it carries, then runs equal rates on both below that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import linear_regression
from typing import Any

from compare.limiter import limiter_of
from compare.measured import Climb, MeasuredSide, Rate, SteadyResult
from compare.phases import run_steady
from deploy.topology import BrokerName
from experiment.workload import Ladder, Steady

P99_SAMPLES_MIN, P999_SAMPLES_MIN = 1_000, 10_000
"""With fewer samples such a percentile hangs on a handful of them."""
DEFINITION = (
    "capacity: the highest rate tried, in orders/s, at which no request failed or found all slots taken, and the "
    "events that were due and had no effect did not become more from two fifths of the time to its end; rungs: "
    "shares of the lower capacity, on both; fitted: cores = idle + per event x events/s, by least squares over "
    "the rungs"
)
_GROWTH_SHARE_MAX = 0.05
_GROWTH_EVENTS_MIN = 5
"""A backlog that grew by so few events, or by such a share of those that came meanwhile, has not grown."""
_LATE_SHARE_MAX = 0.05
_CLOSE_ENOUGH = 1.1
_POINTS_MIN = 3


async def search_capacity(measured: MeasuredSide, asked: Ladder) -> None:
    """Try rates by doubling, then by bisection; ends when carried and not carried differ by a tenth.

    What was written meanwhile is tidied up, or the rungs would be measured beside that.
    """
    tries, steady = measured.climb.tries, measured.side.workload.steady
    orders_per_s: float | None = min(steady.orders_per_s, asked.orders_per_s_max)
    while orders_per_s is not None and len(tries) < asked.tries:
        name = f"capacity-{len(tries) + 1}"
        tries.append(await _run_rate(measured, name, steady.at(orders_per_s), asked.search_s))
        orders_per_s = next_rate(tries, asked.orders_per_s_max)
    await measured.side.databases.tidy()


def next_rate(tries: Sequence[Rate], highest: float) -> float | None:
    """What to try after these, in orders a second; None: the capacity is known well enough."""
    carried = max((rate.orders_per_s for rate in tries if rate.growing is None), default=None)
    above = [rate.orders_per_s for rate in tries if rate.growing is not None]
    # What is not carried below a rate that was is noise; the search goes on above it.
    refused = min((each for each in above if carried is None or each > carried), default=None)
    if refused is None:
        assert carried is not None
        return min(2 * carried, highest) if carried < highest else None
    if carried is None:
        return refused / 2
    return (carried + refused) / 2 if refused / carried > _CLOSE_ENOUGH else None


async def run_rung(measured: MeasuredSide, share: float, capacity: float, asked: Ladder) -> None:
    """Run a share of the capacity, in orders a second, that both sides have."""
    steady = measured.side.workload.steady.at(share * capacity)
    measured.climb.rungs[share] = await _run_rate(measured, f"rung-{share:.0%}", steady, asked.duration_s)


def lower_capacity(sides: Mapping[BrokerName, MeasuredSide]) -> float | None:
    """The capacity that both sides have; None where one carried nothing that was tried."""
    found = [measured.climb.capacity for measured in sides.values()]
    return min((each for each in found if each is not None), default=None) if None not in found else None


async def _run_rate(measured: MeasuredSide, name: str, steady: Steady, duration_s: float) -> Rate:
    measured.side.progress.detail(f"{steady.orders_per_s:,.0f} orders/s")
    result = await run_steady(measured, name, steady, duration_s)
    return Rate(steady.orders_per_s, result, growing(result))


def growing(result: SteadyResult) -> str | None:
    """Why a load was more than the side carries; None: it was not."""
    earlier, later = result.behind
    came = result.load.operations
    if result.load.errors:
        return f"requests were not acknowledged: {result.load.errors}"
    if result.load.overruns:
        return f"{result.load.overruns} requests found as many under way as are allowed"
    if result.load.late > _LATE_SHARE_MAX * came:
        return f"{result.load.late} of {came} requests were sent late"
    if later - earlier > max(_GROWTH_EVENTS_MIN, _GROWTH_SHARE_MAX * came):
        return f"the backlog grew from {earlier} to {later} events"
    return None


def figures(measured: MeasuredSide, machine_cores: float) -> dict[str, Any] | None:
    """What the ladder of a side showed, as plain data; None where there was none, or the side is unsound."""
    climb, broker = measured.climb, measured.side.broker
    if not climb.tries or not measured.sound:
        return None
    return {
        "capacity_orders_per_s": climb.capacity,
        "tries": [
            {
                "orders_per_s": round(rate.orders_per_s, 2),
                "carried": rate.growing is None,
                "why": rate.growing,
                "limiter": _limiter(measured, rate, machine_cores),
                "machine_cores": round(sum(rate.result.cpu_s.values()) / rate.result.seconds, 2)
                if rate.result.seconds
                else None,
            }
            for rate in climb.tries
        ],
        "rungs": [
            {
                "share": share,
                "orders_per_s": round(rate.orders_per_s, 2),
                "carried": rate.growing is None,
                **_latency(rate.result),
                "limiter": _limiter(measured, rate, machine_cores),
                "cores": {
                    group: round(cpu_s / rate.result.seconds, 4) for group, cpu_s in rate.result.cpu_s.items()
                },
            }
            for share, rate in climb.rungs.items()
        ],
        "fitted": fitted(climb, broker, broker_measured=measured.broker_measured),
    }


def _limiter(measured: MeasuredSide, rate: Rate, machine_cores: float) -> str:
    return str(limiter_of(measured, [rate.result], machine_cores) or "none")


def _latency(result: SteadyResult) -> dict[str, float | int | None]:
    """Percentiles for which there are samples enough."""
    count = result.latencies.count
    wanted = {"p50_ms": (50.0, 1), "p99_ms": (99.0, P99_SAMPLES_MIN), "p999_ms": (99.9, P999_SAMPLES_MIN)}
    return {"samples": count} | {
        name: result.latencies.percentile_ms(percentile) if count >= least else None
        for name, (percentile, least) in wanted.items()
    }


def fitted(climb: Climb, broker: BrokerName, *, broker_measured: bool = True) -> dict[str, dict[str, float]]:
    """CPU = idle cores + per event x events/s, by least squares over the rungs; empty with fewer than three."""
    rungs = [rate.result for rate in climb.rungs.values() if rate.growing is None and rate.result.seconds]
    events_per_s = [result.latencies.count / result.seconds for result in rungs]
    if len(set(events_per_s)) < _POINTS_MIN:
        return {}
    parts: dict[str, str] = {"broker": broker} if broker_measured else {}
    parts |= {"services": f"{broker}_services", "postgres": "postgres", "redis": "redis"}
    found: dict[str, dict[str, float]] = {}
    for name, group in parts.items():
        cores = [result.cpu_s.get(group, 0.0) / result.seconds for result in rungs]
        slope, intercept = linear_regression(events_per_s, cores)
        found[name] = {"idle_cores": round(intercept, 4), "cpu_us_per_event": round(slope * 1e6, 1)}
    return found
