"""What each part costs: idle cores, and CPU for each event beyond them.

CPU = idle · seconds + per event · events. What a part burns idle is measured while the other side works (where it
is frozen then: while neither does), and not extrapolated: the rounds have one rate, through which no line can be
fitted. The ladder fits one over its rungs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

from compare.measured import BacklogResult, MeasuredSide
from deploy.topology import BrokerName

Window = tuple[Mapping[str, float], float, int]
"""CPU seconds by group, seconds, events."""


def costs(sides: Mapping[BrokerName, MeasuredSide]) -> dict[BrokerName, dict[str, float | None]]:
    """For each broker: what a sound side's parts cost, by figure; None where it was not taken."""
    return {
        broker: _costs(measured, [(*measured.idle, 0)] if measured.idle else _others(sides, broker))
        for broker, measured in sides.items()
    }


def _others(sides: Mapping[BrokerName, MeasuredSide], broker: BrokerName) -> list[Window]:
    return [window for other, measured in sides.items() if other != broker for window in _all(measured)]


def _costs(measured: MeasuredSide, meanwhile: list[Window]) -> dict[str, float | None]:
    broker, backlogs = measured.side.broker, measured.backlogs
    steady, relay, drain = _steady(measured), _relay(backlogs), _drain(backlogs)
    found: dict[str, float | None] = {}
    for part, group in {"broker": broker, "services": f"{broker}_services"}.items():
        idle = _cores(meanwhile, group)
        found[f"{part}_idle_cores"] = _rounded(idle, 3)
        for name, windows in {"steady": steady, "relay": relay, "drain": drain}.items():
            found[f"{part}_{name}_cpu_us_per_event"] = _rounded(_beyond_idle(windows, group, idle or 0.0), 1)
    for server in (broker, "postgres"):
        part = "broker" if server == broker else server
        written = sum(result.kept.written_bytes.get(server, 0) for result in backlogs)
        events = sum(result.events for result in backlogs)
        found[f"{part}_bytes_written_per_event"] = round(written / events) if events and written else None
    growth = _per_event((result.kept.stored_bytes, result.events) for result in backlogs)
    found["broker_log_growth_bytes_per_event"] = _rounded(growth, 0)
    flushed = _per_event((each.details.disk_flushes, each.latencies.count) for each in measured.steady)
    found["disk_flushes_steady_per_event"] = _rounded(flushed, 2)
    flushed = _per_event((result.kept.disk_flushes, result.events) for result in backlogs)
    found["disk_flushes_backlog_per_1000_events"] = _rounded(flushed and 1_000 * flushed, 1)
    memory = [result.broker_memory_bytes for result in backlogs if result.broker_memory_bytes is not None]
    found["broker_memory_mib"] = round(max(memory) / 2**20) if memory else None
    if not measured.broker_measured:
        found |= dict.fromkeys(name for name in found if name.startswith("broker_"))
    return found


def _steady(measured: MeasuredSide) -> list[Window]:
    return [(result.cpu_s, result.seconds, result.latencies.count) for result in measured.steady]


def _relay(backlogs: Iterable[BacklogResult]) -> list[Window]:
    return [(result.relay_cpu_s, result.relay_seconds, result.events) for result in backlogs]


def _drain(backlogs: Iterable[BacklogResult]) -> list[Window]:
    return [(result.cpu_s, result.seconds, result.cpu_effects) for result in backlogs]


def _all(measured: MeasuredSide) -> list[Window]:
    return [*_steady(measured), *_relay(measured.backlogs), *_drain(measured.backlogs)]


def _cores(windows: Iterable[Window], group: str) -> float | None:
    rows = list(windows)
    seconds = sum(length_s for _, length_s, _ in rows)
    return sum(cpu_s.get(group, 0.0) for cpu_s, _, _ in rows) / seconds if seconds else None


def _beyond_idle(windows: Iterable[Window], group: str, idle_cores: float) -> float | None:
    """Microseconds for each event: the median of the windows."""
    each = [
        (cpu_s.get(group, 0.0) - idle_cores * length_s) / events * 1e6
        for cpu_s, length_s, events in windows
        if events
    ]
    return max(0.0, median(each)) if each else None


def _per_event(windows: Iterable[tuple[int | None, int]]) -> float | None:
    """Of all windows together; None where it is not known of one, or there was none."""
    rows = list(windows)
    events = sum(count for _, count in rows)
    known = [amount for amount, _ in rows if amount is not None]
    return sum(known) / events if events and len(known) == len(rows) else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
