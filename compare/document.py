"""The form of `summary.json`, and how one is read: `docs/summary.schema.json` is made from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deploy.topology import BrokerName

Count = Annotated[int, Field(ge=0)]
Ratio = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
FORMAT = 2
"""1 had no `comparison`."""


class DocumentError(Exception):
    """A directory holds no summary that can be read; the message is one sentence that names the file."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Latency(_Part):
    """Percentiles of one phase, or of all: milliseconds. `without_effect` are among the samples, with their
    wait."""

    samples: Count
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    without_effect: Count = 0
    negative_samples: Count = 0


class SteadyRound(_Part):
    """One phase of steady load. `cpu_s` is by group of processes, over `seconds`."""

    phase: str
    latency: Latency
    load: dict[str, Any]
    cpu_s: dict[str, float]
    seconds: float
    clock_drift_ms: float


class WarmUpFigures(_Part):
    """How long a side was warmed up, its median latency in each window of that time, and whether the last two were
    close to each other; null: not tried."""

    seconds: float
    p50_ms: list[float | None]
    stationary: bool | None


class Stage(_Part):
    """How long one stage of an event's way took under the steady load: milliseconds."""

    samples: Count
    mean_ms: float
    p50_ms: float | None
    p99_ms: float | None


class BacklogRound(_Part):
    """One backlog that was shipped and drained."""

    phase: str
    events: Count
    waiting_at_start: Count
    effects_per_s: float | None
    cpu_effects: Count
    relay_events_per_s: float | None
    consumer_start_to_first_effect_s: float | None
    cpu_s: dict[str, float]
    cpu_window_s: float
    broker_memory_mib: Count | None
    events_per_batch: dict[str, float] = {}


class Try(_Part):
    """A rate in the search for the capacity, why it was not carried, and who had no more to give meanwhile.

    `machine_cores`: what all programs of the machine used together, from the first request to the last effect.
    """

    orders_per_s: float
    carried: bool
    why: str | None
    limiter: str | None = None
    machine_cores: float | None = None


class Rung(_Part):
    """The steady load at a share of the lower capacity; percentiles only where there are samples enough."""

    share: float
    orders_per_s: float
    carried: bool
    samples: Count
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    limiter: str
    cores: dict[str, float]


class LadderFigures(_Part):
    """What a side carries, and how it does below that. `fitted` is by part: idle cores, and CPU µs per event."""

    capacity_orders_per_s: float | None
    tries: list[Try]
    rungs: list[Rung]
    fitted: dict[str, dict[str, float]]


class BesideFigures(_Part):
    """What ran beside the orders in a scenario: latencies of all rounds together, and counts by name."""

    samples: Count
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    counts: dict[str, Count]


class ScenarioFigures(_Part):
    """The steady load with something that happens meanwhile: latencies of all rounds together, and what else was
    found, as medians of the rounds."""

    kind: str
    rounds: Annotated[int, Field(ge=1)]
    samples: Count
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    found: dict[str, float]
    worst_ms_by_second: list[float | None]
    beside: BesideFigures | None = None


class LayerFigures(_Part):
    """A part of the whole by itself: messages per second (median of the rounds), and what used how many cores.

    `layer`: `publish` and `consume` through the client library alone, `pipeline` without broker. `as_tandem`: in
    the mode of Tandem's own channels, by one consumer. `messages`: how many each run carried, the fewest of its
    rounds; null, in older documents: as many as `layers.events`.
    """

    layer: Literal["publish", "consume", "pipeline"]
    mode: str | None
    order: Literal["by key", "whole stream", "none"] | None
    as_tandem: bool
    consumers: Annotated[int, Field(ge=1)]
    rounds: Annotated[int, Field(ge=1)]
    messages: Count | None = None
    per_s: float | None
    range: tuple[float | None, float | None]
    limiter: str
    client_cores: float | None
    broker_cores: float | None
    per_batch: float


class BrokerFigures(_Part):
    """What one side showed: figures (null where events were lost, doubled or reordered), and what became of
    events."""

    effects_per_s: float | None
    relay_events_per_s: float | None
    p50_ms: float | None
    p99_ms: float | None
    acknowledged: Count
    effects: Count
    lost: Count
    duplicate_effects: Count
    reordered: Count
    stuck: Count
    dead_lettered: Count
    unexpected: Count
    indeterminate_recovered: Count
    stale: Count = 0
    corrupted: Count = 0
    delivered_out_of_order: Count = 0
    committed_out_of_order: Count = 0
    duplicate_deliveries: Count = 0
    unstamped: Count = 0
    beside_wrong: Count = 0
    stages: dict[str, Stage] = {}
    broker_cores: dict[str, float | None]
    by_round: dict[str, list[float | None]]
    range: dict[str, tuple[float | None, float | None]]
    latency: Latency | None
    cost: dict[str, float | None]
    warm_up: WarmUpFigures | None = None
    steady_rounds: list[SteadyRound]
    backlog_rounds: list[BacklogRound]
    void_rounds: list[str] = []
    control_rounds: dict[str, list[Any]] = {}
    ladder: LadderFigures | None = None
    scenarios: list[ScenarioFigures] = []
    layers: list[LayerFigures] = []
    examples: dict[str, list[str]]


class ControlResult(_Part):
    """What was planted (on one broker, or on both in turns) and what the run found of it."""

    name: str
    broker: BrokerName | None
    planted: str
    found: str
    passed: bool


class ComparedFigure(_Part):
    """What the pairs of rounds say about one figure. `ratio` and `interval` are of what `ratio_of` names;
    `resolution` is the factor by which a broker seems to differ from itself."""

    title: str
    unit: str
    better: Literal["higher", "lower"]
    primary: bool
    ratio_of: str
    pairs: Count
    ratio: Ratio | None
    interval: tuple[float, Ratio] | None
    confidence: Probability | None
    p: Probability | None
    p_holm: Probability | None
    resolution: float | None = None
    limiter: str | None
    limiters: dict[BrokerName, str] = {}
    verdict: Literal["better", "equivalent", "inconclusive", "not named", "none"]
    winner: BrokerName | None
    why: str | None
    sentence: str


class ChangedFigure(_Part):
    """What became of one figure on one broker. `ratio` and `interval` are of this run to the other."""

    title: str
    pairs: Count
    ratio: Ratio | None
    interval: tuple[float, Ratio] | None
    p_holm: Probability | None
    verdict: Literal["better", "worse", "equivalent", "inconclusive", "not named", "none"]
    sentence: str


class Circumstance(_Part):
    """A setting, version or part of the machine that was another one in the other run."""

    what: str
    before: str
    now: str


class Changes(_Part):
    """What changed since another run. `refused` says why nothing is said about figures."""

    base: str
    base_started_at: str
    refused: str | None
    figures: dict[BrokerName, dict[str, ChangedFigure]]
    circumstances: list[Circumstance]


class Recommendation(_Part):
    """What one's own weights make of the run. `flips` has the share of all weight at which the answer turns."""

    broker: BrokerName | None
    p_best: dict[BrokerName, Probability]
    verdict: str
    why: list[str]
    flips: dict[str, Probability | None]
    unknown: list[str]
    money_per_million: dict[BrokerName, float | None]
    currency: str


class Summary(_Part):
    """A whole run. `workload` is the file that it followed; `settings`, every setting that is no default.

    `cut_short` says what ended it before its events were checked: their counts then say nothing.
    """

    format: Literal[2]
    brokers: Annotated[dict[BrokerName, BrokerFigures], Field(min_length=2, max_length=2)]
    comparison: dict[str, ComparedFigure]
    controls: list[ControlResult] = []
    differences: dict[str, str]
    notes: list[str]
    workload: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]
    hardware: dict[str, Any]
    definitions: dict[str, str]
    disclaimer: str
    command: str
    started_at: str
    took_s: Annotated[float, Field(ge=0)]
    cut_short: str | None = None
    changes: Changes | None = None
    recommendation: Recommendation | None = None

    @property
    def own_brokers(self) -> dict[str, str]:
        """Where each broker is that is somebody's own: nothing of it was measured but through its clients."""
        found: dict[str, str] = self.settings.get("own_brokers", {})
        return found

    @property
    def not_measured(self) -> list[str]:
        """Which figures of cost could not be measured on either side."""
        found: list[str] = self.settings.get("not_measured", [])
        return found

    @property
    def not_checked(self) -> list[BrokerName]:
        """Of which broker it was not checked what it promises by confirming an event."""
        found: list[BrokerName] = self.settings.get("not_checked", [])
        return found

    @property
    def sound(self) -> bool:
        """Whether no side lost, doubled or reordered anything, or left it behind."""
        return not self.cut_short and not any(
            getattr(row, name) for row in self.brokers.values() for name in UNSOUND
        )


UNSOUND = (
    "lost",
    "duplicate_effects",
    "reordered",
    "delivered_out_of_order",
    "committed_out_of_order",
    "corrupted",
    "stuck",
    "dead_lettered",
    "stale",
    "unexpected",
    "beside_wrong",
)
"""The counts of which each must be 0."""


def read_summary(directory: Path) -> Summary:
    """The summary in the directory of a report. Raises `DocumentError`."""
    path = directory / "summary.json"
    try:
        return Summary.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise DocumentError(f"{path} is no summary of a comparison: {where}: {first['msg']}") from None


def flattened(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as pairs of a dotted name and a value in words."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flattened(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, "; ".join(str(item) for item in value) or "none"
    else:
        yield name, "not set" if value is None or value == "" else str(value)


def schema() -> str:
    """The JSON Schema (2020-12) of `summary.json`."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "summary.json of `make compare`",
        **{key: value for key, value in Summary.model_json_schema().items() if key != "title"},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
