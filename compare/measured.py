"""One side as the comparison sees it: what its phases showed, what its stamps say, what the check found."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.topology import BrokerName
from experiment.beside import Told
from experiment.checker import Effect, Verdict
from experiment.clock import until
from experiment.figures import Latencies, RateFigure
from experiment.layers import Ran
from experiment.ledger import Entry, Identity
from experiment.load import LoadReport
from experiment.side import Side
from experiment.stamps import Passage, Stages, StampReader, Times, passage_of, times_of
from experiment.usage import OTHERS, STOLEN, Details
from experiment.workload import FigureName

GROWTH = (0.4, 1.0)
"""From when until when, in parts of its time, a load's backlog must not grow: till then it fills what it flows
through."""
AGAIN = "-again"
"""How the name of a phase ends that is run a second time."""
_STAMPS_TIMEOUT_S = 30.0
_STAMPS_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class SteadyResult:
    """What one phase of steady load showed.

    `cpu_s` is by group, `seconds` long: from the first request until every effect is there. `behind` is how many
    events were due and had no effect, at the two times of `GROWTH`.
    """

    phase: str
    load: LoadReport
    latencies: Latencies
    cpu_s: dict[str, float]
    seconds: float
    clock_drift_s: float
    stages: Stages = field(default_factory=Stages)
    details: Details = field(default_factory=Details)
    behind: tuple[int, ...] = (0, 0)


@dataclass(frozen=True, slots=True)
class BacklogResult:
    """What one backlog showed.

    `waiting` is what the broker held when the consumer was started, `first_effect_s` the time from that start
    to the first effect. `cpu_s`, `cpu_effects` and `seconds` belong together: from soon after the first effect
    to the last; so do `relay_cpu_s` and `relay_seconds`: from when the backlog was written until it was shipped.
    `broker_memory_bytes` is the highest from the stop of the consumer on (None: not measured), `kept` what became
    of disks since the backlog was written. `events_per_batch`: on average, as `sent` by the relay, and as
    `received` by the consumer.
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
    broker_memory_bytes: int | None
    clock_drift_s: float
    details: Details = field(default_factory=Details)
    relay_details: Details = field(default_factory=Details)
    kept: Details = field(default_factory=Details)
    events_per_batch: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WarmUpResult:
    """How long a side was warmed up, the median latency of each window of that time in ms (infinite: most had no
    effect), and whether the last two were close to each other; None: there were no two."""

    seconds: float
    medians_ms: tuple[float, ...]
    stationary: bool | None


FOREIGN_SHARE_MAX = 0.1


def foreign_share(result: SteadyResult | BacklogResult, machine_cores: float) -> float:
    """The part of the machine's CPU time that the run could not have: other programs used it, or it was stolen."""
    available_s = result.seconds * machine_cores
    foreign_s = result.cpu_s.get(OTHERS, 0.0) + result.cpu_s.get(STOLEN, 0.0)
    return foreign_s / available_s if available_s else 0.0


@dataclass(slots=True)
class ControlPhases:
    """What the phases of the controls showed on a side, by the number of their round.

    `repeated`: the steady load once more, with nothing changed. `delayed`: the same with a planted delay, which
    took `delays_s`. `slowed`: a backlog with a planted slowdown. `wire`: what was found of what was planted on the
    wire; None: nothing was planted.
    """

    repeated: dict[int, SteadyResult] = field(default_factory=dict)
    delayed: dict[int, SteadyResult] = field(default_factory=dict)
    delays_s: list[float] = field(default_factory=list)
    slowed: dict[int, BacklogResult] = field(default_factory=dict)
    wire: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """The steady load at one rate. `growing` says why it is more than the side carries; None: it is not."""

    orders_per_s: float
    result: SteadyResult
    growing: str | None


@dataclass(slots=True)
class Climb:
    """What a ladder of rates showed: `tries` in the search for the capacity, `rungs` by share of the lower one."""

    tries: list[Rate] = field(default_factory=list)
    rungs: dict[float, Rate] = field(default_factory=dict)

    @property
    def capacity(self) -> float | None:
        """The most orders a second that were tried and carried; None: none was."""
        return max((rate.orders_per_s for rate in self.tries if rate.growing is None), default=None)


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """One run of a scenario. `found` is what is to be told besides, by name; `worst_ms` the highest latency of the
    events that were due in each second; `beside` what came of what ran beside the orders, if anything did."""

    kind: str
    steady: SteadyResult
    found: dict[str, float]
    worst_ms: tuple[float | None, ...]
    beside: Told | None = None


@dataclass(frozen=True, slots=True)
class LayerResult:
    """One run of a layer: `publish` or `consume` in a mode, by so many `consumers`; or `pipeline`.

    `cpu_s` is by group, over `seconds`, without the layer's own processes, whose is in `ran`.
    """

    layer: str
    mode: str | None
    consumers: int
    ran: Ran
    cpu_s: dict[str, float]
    seconds: float
    details: Details


@dataclass(slots=True)
class MeasuredSide:
    """A side and what was measured on it, in the order of the rounds; `void` was measured, and does not count."""

    side: Side
    steady: list[SteadyResult] = field(default_factory=list)
    backlogs: list[BacklogResult] = field(default_factory=list)
    void: list[SteadyResult | BacklogResult] = field(default_factory=list)
    warm_up: WarmUpResult | None = None
    idle: tuple[dict[str, float], float] | None = None
    """CPU seconds by group, over seconds, while nothing was to be done; None: not measured by itself."""
    controls: ControlPhases = field(default_factory=ControlPhases)
    climb: Climb = field(default_factory=Climb)
    scenarios: list[ScenarioResult] = field(default_factory=list)
    beside_wrong: list[str] = field(default_factory=list)
    """What was lost, done twice or wrong of what ran beside the orders."""
    layers: list[LayerResult] = field(default_factory=list)
    layer_copies: int = 1
    """How many times over the client libraries carry the messages of a layer, as the last runs were too short."""
    layer_failure: str | None = None
    """Why there are no more of them."""
    passage: Passage = field(default_factory=Passage)
    """What the stamps of all phases say."""
    stamps: StampReader = field(init=False)
    _seen: int = 0

    def __post_init__(self) -> None:
        self.stamps = StampReader(stamps_directory(self.side.runtime.root, self.side.broker))

    @property
    def broker_measured(self) -> bool:
        """Whether the broker's CPU, memory and disk are known; not those of one's own."""
        return self.side.own_broker is None

    @property
    def can_be_frozen(self) -> bool:
        """Whether the broker runs as processes of the run; not one's own, nor one in a container."""
        return self.side.broker in self.side.runtime.servers

    @property
    def verdict(self) -> Verdict:
        """What the last check found."""
        return self.side.verdict

    @property
    def sound(self) -> bool:
        """Whether every event had its one effect, in order, with the bytes that were sent, and so had what ran
        beside."""
        return self.verdict.sound and self.passage.sound and not self.beside_wrong

    def by_round(self) -> dict[FigureName, list[float | None]]:
        """Each figure that is compared, in the order of its rounds."""
        return {
            "effects_per_s": [result.drain.per_s for result in self.backlogs],
            "relay_events_per_s": [result.relay.per_s for result in self.backlogs],
            "p50_ms": [result.latencies.percentile_ms(50) for result in self.steady],
            "p99_ms": [result.latencies.percentile_ms(99) for result in self.steady],
        }

    async def read_stamps(self, entries: list[Entry], foreign: int = 0) -> dict[Identity, Times]:
        """End a phase: what its events' stamps are, by event, once every effect since the last call has them all.

        `entries` are those of the phase, and get their times. What has no stamp in time is counted as unstamped;
        of so many as are `foreign` it is known that they will not have them all.
        """
        effects = [effect for effect in self.side.effects if effect.position > self._seen]

        async def stamped() -> bool:
            await asyncio.to_thread(self.stamps.read)
            found = (times_of(effect, self.stamps.times) for effect in effects)
            return sum(times is None or not times.complete for times in found) <= foreign

        await until(stamped, _STAMPS_TIMEOUT_S, _STAMPS_POLL_S)
        self.passage += passage_of(effects, self.stamps.times)
        found = self._by_identity(effects)
        self._enter(entries, found)
        self._seen = max([self._seen, *(effect.position for effect in effects)])
        self.controls.delays_s += self.stamps.planted_s
        self.stamps.forget()
        return found

    def _by_identity(self, effects: list[Effect]) -> dict[Identity, Times]:
        rows = ((effect.identity, times_of(effect, self.stamps.times)) for effect in effects)
        return {identity: times for identity, times in rows if times is not None}

    def _enter(self, entries: list[Entry], found: dict[Identity, Times]) -> None:
        clock = self.side.clock
        for entry in entries:
            times = found.get(entry.identity) if entry.identity else None
            if times is None:
                continue
            entry.relayed_s, entry.confirmed_s, entry.received_s, entry.durable_s = (
                None if mark is None else clock.at_s(mark) for mark in times.marks
            )


def stamps_directory(root: Path, broker: BrokerName) -> Path:
    """Where the services on a broker write their stamps."""
    return root / "stamps" / broker
