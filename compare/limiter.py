"""Names what a figure was limited by, from what was used while it was taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from compare.measured import LayerResult, MeasuredSide, SteadyResult
from deploy.topology import BrokerName
from experiment.effects import CONSUMER
from experiment.facts import TITLES
from experiment.usage import GENERATOR, OTHERS, STOLEN, Details
from experiment.workload import FigureName

BROKER = "broker CPU"
UNKNOWN = "unknown"
NONE = "none"
BUSY_CORES_MIN = 0.7
"""Who uses so much of a core, on average of a window with its edges, has no more to give: clients have one thread,
and so has a queue of RabbitMQ's."""
_MACHINE_FULL = 0.9
_STALLED_MIN = 0.5
Spent = tuple[Mapping[str, float], float, Details]
"""CPU seconds by group, seconds, details."""
Wanted = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Limiter:
    """`name`: `client CPU`, `broker CPU`, `database`, `generator`, `disk`, `foreign load` (other programs),
    or `none`, where nothing was used up; then `cores` is what the busiest of them used. `unknown`: nothing that is
    measured was used up, and the broker is not measured."""

    name: str
    cores: float

    def __str__(self) -> str:
        if self.name == UNKNOWN:
            return f"{UNKNOWN} (the broker is not measured)"
        return f"{self.name} ({self.cores:.2f} cores)"


def limiters(measured: MeasuredSide, machine_cores: float) -> dict[FigureName, Limiter | None]:
    """What limited each figure of a side; None where it was not taken."""
    steady = limiter_of(measured, measured.steady, machine_cores)
    drain = ((r.cpu_s, r.seconds, r.details) for r in measured.backlogs)
    relay = ((r.relay_cpu_s, r.relay_seconds, r.relay_details) for r in measured.backlogs)
    return {
        "effects_per_s": _limiter(measured, drain, _consumer, machine_cores),
        "relay_events_per_s": _limiter(measured, relay, _every_client, machine_cores),
        "p50_ms": steady,
        "p99_ms": steady,
    }


def limiter_of(measured: MeasuredSide, steady: Iterable[SteadyResult], machine_cores: float) -> Limiter | None:
    """What limited phases of steady load; None without any."""
    return _limiter(measured, ((r.cpu_s, r.seconds, r.details) for r in steady), _every_client, machine_cores)


def layer_limiter(measured: MeasuredSide, results: Sequence[LayerResult], machine_cores: float) -> Limiter | None:
    """What limited runs of one layer, whose processes are the clients; None without any."""
    spent = (_spent_in_layer(measured.side.broker, each) for each in results)
    return _limiter(measured, spent, _layers_own, machine_cores)


def _layers_own(name: str) -> bool:
    return "-layer-" in name


def _spent_in_layer(broker: BrokerName, result: LayerResult) -> Spent:
    own = {f"{broker}-layer-{which}": cpu_s for which, cpu_s in enumerate(result.ran.cpu_s)}
    cpu_s = {**result.cpu_s, "layer": sum(own.values())}
    return cpu_s, result.seconds, replace(result.details, process_cpu_s=own)


def said(found: Mapping[BrokerName, Limiter | None]) -> str | None:
    """In words: one for both, or one for each."""
    names = {limiter.name for limiter in found.values() if limiter is not None}
    if len(names) <= 1:
        return next(iter(names), None)
    return "; ".join(f"{TITLES[broker]}: {limiter.name}" for broker, limiter in found.items() if limiter)


def _consumer(name: str) -> bool:
    return CONSUMER in name


def _every_client(_name: str) -> bool:
    return True


def _limiter(
    measured: MeasuredSide, spent: Iterable[Spent], clients: Wanted, machine_cores: float
) -> Limiter | None:
    broker = measured.side.broker
    rows = [row for row in spent if row[1] > 0]
    seconds = sum(length_s for _, length_s, _ in rows)
    if not seconds:
        return None

    def cores(group: str) -> float:
        return sum(cpu_s.get(group, 0.0) for cpu_s, _, _ in rows) / seconds

    used = ({BROKER: cores(broker)} if measured.broker_measured else {}) | {
        "client CPU": _busiest_client(broker, rows, clients) / seconds or cores(f"{broker}_services"),
        "database": cores("postgres"),
        "generator": cores(GENERATOR),
    }
    name = max(used, key=lambda each: used[each])
    machine, others = sum(sum(cpu_s.values()) for cpu_s, _, _ in rows) / seconds, cores(OTHERS) + cores(STOLEN)
    stalled = sum(details.stalled_s for _, _, details in rows) / seconds
    full = machine >= _MACHINE_FULL * machine_cores
    if full and others >= machine / 2:
        return Limiter("foreign load", others)
    if full or used[name] >= BUSY_CORES_MIN:
        return Limiter(name, used[name])
    nothing = NONE if measured.broker_measured else UNKNOWN
    return Limiter("disk" if stalled >= _STALLED_MIN else nothing, used[name])


def _busiest_client(broker: BrokerName, rows: Iterable[Spent], clients: Wanted) -> float:
    totals: dict[str, float] = {}
    for _, _, details in rows:
        for name, cpu_s in details.process_cpu_s.items():
            if name.startswith(f"{broker}-") and clients(name):
                totals[name] = totals.get(name, 0.0) + cpu_s
    return max(totals.values(), default=0.0)
