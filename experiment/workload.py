"""Reads and checks the workload file, which says what load both brokers get."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=5_000)]
_Rungs = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1, max_length=10)]
Lines = Annotated[int, Field(ge=1, le=100)]
SUBSCRIBERS_MAX = 20
"""More of the orders' events than there are always."""
CONSUMERS_MAX = 4
FigureName = Literal["effects_per_s", "relay_events_per_s", "p50_ms", "p99_ms"]
"""What a comparison may decide."""


ProfileName = Literal["single-fsync", "single-pagecache", "as-usual", "replicated"]
"""What both brokers promise when they confirm an event (`experiment.profiles`)."""
PAYLOAD_BYTES_MAX = 16_384
"""As much as the order service takes as a note."""
_LAYER_BYTES_MAX = 2**29
_WARM_UP_S = 30.0


class WorkloadError(Exception):
    """The workload file cannot be used; the message is one sentence that names the file and the field."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WarmUp(_Part):
    """Load on each broker before the first round: checked like everything else, and not measured.

    The steady load runs for `steady_s` at least, and on until its median latency hardly changes any more, but for
    `steady_s_max` at most; None: 30 s, or twice `steady_s`.
    """

    steady_s: Annotated[float, Field(ge=0, le=600)] = 3.0
    steady_s_max: Annotated[float, Field(ge=0, le=3_600)] | None = None
    backlog_events: Annotated[int, Field(ge=0, le=1_000_000)] = 2_000

    @model_validator(mode="after")
    def _longest_is_longest(self) -> Self:
        if self.longest_s < self.steady_s:
            raise ValueError("steady_s_max must not be less than steady_s")
        return self

    @property
    def longest_s(self) -> float:
        """For how long the steady load runs at most."""
        return max(_WARM_UP_S, 2 * self.steady_s) if self.steady_s_max is None else self.steady_s_max


class Steady(_Part):
    """Load over HTTP at a fixed rate, open loop: the schedule never waits for the system.

    An order is paid or cancelled (or neither) `follow_up_after_s` after its intended time: two events in a row
    of one key. Profile updates go to users drawn by a Zipf law with exponent `key_skew` (0: all alike), so that
    hot keys have many events in a row. `arrivals`: `even`, like a metronome, `poisson`, as independent people
    come, or `bursts`: those of a second in its first tenth; equally many each way. At most `in_flight_max`
    requests are under way at once.
    """

    duration_s: Annotated[float, Field(gt=0, le=3_600)]
    orders_per_s: Rate
    arrivals: Literal["even", "poisson", "bursts"] = "even"
    pay_share: Share = 0.35
    cancel_share: Share = 0.15
    follow_up_after_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    profile_updates_per_s: Annotated[float, Field(ge=0, le=5_000)] = 0.0
    key_skew: Annotated[float, Field(ge=0, le=3)] = 1.0
    lines_per_order: Lines = 3
    in_flight_max: Annotated[int, Field(ge=1, le=1_000)] = 100
    request_timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.pay_share + self.cancel_share > 1:
            raise ValueError("pay_share and cancel_share together must not exceed 1: an order is closed once")
        return self

    @property
    def events_per_s(self) -> float:
        """How many events a second this load causes."""
        return self.orders_per_s * (1 + self.pay_share + self.cancel_share) + self.profile_updates_per_s

    def at(self, orders_per_s: float) -> Steady:
        """The same mix at another rate."""
        updates_per_s = self.profile_updates_per_s * orders_per_s / self.orders_per_s
        return self.model_copy(update={"orders_per_s": orders_per_s, "profile_updates_per_s": updates_per_s})


class Backlog(_Part):
    """Events that wait in the broker while the consumer is down, and are then drained.

    `closed_share` of the orders are paid as well: two events of one key. `updates_share` of the events are changes
    of users instead, drawn by a Zipf law with exponent `key_skew`: a hot key has many events in a row. Only the
    last `rounds` rounds have a backlog; None: all have one.
    """

    events: Annotated[int, Field(ge=100, le=1_000_000)]
    rounds: Annotated[int, Field(ge=1, le=100)] | None = None
    closed_share: Share = 0.5
    updates_share: Share = 0.0
    key_skew: Annotated[float, Field(ge=0, le=3)] = 1.0
    lines_per_order: Lines = 3


class Controls(_Part):
    """What is planted and must be found; where it is not, the run gives no verdict.

    `wire`: after the last round each broker's wire loses, doubles, repeats, reorders and corrupts an event.
    `timing`: in each round the steady load runs once more on both brokers, with nothing changed, and once on one
    of them with each request delayed by `delay_ms`; one broker drains its backlog again, slowed down by `slowdown`
    (0.2: four fifths of its speed). From 8 rounds on.
    """

    wire: bool = True
    timing: bool = False
    delay_ms: Annotated[float, Field(gt=0, le=1_000)] = 5.0
    slowdown: Annotated[float, Field(gt=0, le=0.9)] = 0.2


class Ladder(_Part):
    """The steady load at several rates, after the rounds.

    First the capacity of each side is searched for, in at most `tries` of `search_s` each: the most orders a
    second of which no backlog grows, up to `orders_per_s_max`. Then both sides get the same rates, `shares` of the
    lower capacity, for `duration_s` each.
    """

    shares: _Rungs = (0.1, 0.25, 0.5, 0.7, 0.85)
    duration_s: Annotated[float, Field(gt=0, le=600)] = 15.0
    search_s: Annotated[float, Field(ge=2, le=600)] = 8.0
    tries: Annotated[int, Field(ge=1, le=20)] = 7
    orders_per_s_max: Rate = 1_000.0


class _Scenario(_Part):
    """The steady load, or another rate of it, for `duration_s` in each of `rounds` on each broker, and something
    that happens meanwhile."""

    duration_s: Annotated[float, Field(gt=0, le=600)] = 12.0
    orders_per_s: Rate | None = None
    rounds: Annotated[int, Field(ge=1, le=100)] = 3


class LiveDrain(_Scenario):
    """A backlog of `events` is drained meanwhile."""

    kind: Literal["live-drain"]
    events: Annotated[int, Field(ge=100, le=1_000_000)] = 4_000


class Bursts(_Scenario):
    """The requests of a second come in its first tenth."""

    kind: Literal["bursts"]


class PastHttp(_Scenario):
    """The load is committed to the services' outboxes on time, without HTTP."""

    kind: Literal["past-http"]


class SlowConsumer(_Scenario):
    """The consumer stands still for `slowdown` of its working time (0.5: half of its speed)."""

    kind: Literal["slow-consumer"]
    slowdown: Annotated[float, Field(gt=0, le=0.9)] = 0.5


class Poison(_Scenario):
    """Beside `share` of the events another one comes that no subscriber can read."""

    kind: Literal["poison"]
    share: Annotated[float, Field(gt=0, le=1)] = 0.01


class KilledConsumer(_Scenario):
    """The consumer is killed after a third of the time; its supervisor starts it again."""

    kind: Literal["killed-consumer"]


class RequestReply(_Scenario):
    """Requests are sent through the broker, answered by a service, and their replies awaited for `timeout_s`."""

    kind: Literal["request-reply"]
    requests_per_s: Annotated[float, Field(gt=0, le=1_000)] = 20.0
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0


class JobGraphs(_Scenario):
    """Jobs are submitted: in turns a chain of `steps`, and a group of as many with a join."""

    kind: Literal["jobs"]
    jobs_per_s: Annotated[float, Field(gt=0, le=500)] = 5.0
    steps: Annotated[int, Field(ge=2, le=100)] = 5


class FanOut(_Scenario):
    """The events of orders have so many more `subscribers`, each with effects of its own."""

    kind: Literal["fan-out"]
    subscribers: Annotated[int, Field(ge=1, le=SUBSCRIBERS_MAX)] = 5


Scenario = Annotated[
    LiveDrain | Bursts | PastHttp | SlowConsumer | Poison | KilledConsumer | RequestReply | JobGraphs | FanOut,
    Field(discriminator="kind"),
]


class Layers(_Part):
    """Parts of the whole by themselves, after the check, `rounds` times with `events` messages each.

    With the same bytes: published and consumed through the client library alone, without any effect, several times
    over what takes it no time; and through Tandem's pipeline with nothing that it comes from. `modes`: consumed in
    other modes and by more consumers, too.
    """

    events: Annotated[int, Field(ge=100, le=1_000_000)] = 30_000
    rounds: Annotated[int, Field(ge=1, le=100)] = 3
    modes: bool = True


class Workload(_Part):
    """A whole workload file.

    `primary` are the figures about which the run decides, named before it, at most four: each more makes all of
    them harder to prove. A difference within `margin` (0.1: 10 %) does not matter. `profile` is what both brokers
    promise when they confirm an event: without equal promises nothing is decided.
    `consumers` processes of the whole system take the events whose effects are counted, on each side.
    `freeze`: while one side is measured in the rounds, and on the ladder, broker and services of the other stand
    still.
    After the check both sides are left alone for `quiet_s`, and checked again.
    `payload_bytes` is how much larger each `order.placed` is: its order has a note of so many bytes, half of which
    cannot be compressed, under every load, in every backlog and in the layers.
    `settle_timeout_s` is how long an acknowledged event may take before it counts as not arrived.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    seed: int
    rounds: Annotated[int, Field(ge=1, le=100)] = 6
    primary: Annotated[tuple[FigureName, ...], Field(min_length=1, max_length=4)] = ("p50_ms",)
    margin: Annotated[float, Field(gt=0, le=1)] = 0.1
    profile: ProfileName = "single-fsync"
    users: Annotated[int, Field(ge=1, le=10_000)]
    consumers: Annotated[int, Field(ge=1, le=CONSUMERS_MAX)] = 1
    payload_bytes: Annotated[int, Field(ge=0, le=PAYLOAD_BYTES_MAX)] = 0
    warm_up: WarmUp = WarmUp()
    steady: Steady
    backlog: Backlog
    controls: Controls = Controls()
    ladder: Ladder | None = None
    scenarios: Annotated[tuple[Scenario, ...], Field(max_length=10)] = ()
    layers: Layers | None = None
    freeze: bool = False
    quiet_s: Annotated[float, Field(ge=0, le=600)] = 2.0
    settle_timeout_s: Annotated[float, Field(gt=0, le=3_600)] = 60.0

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if len(set(self.primary)) != len(self.primary):
            raise ValueError("primary names a figure twice")
        kinds = [scenario.kind for scenario in self.scenarios]
        if len(set(kinds)) != len(kinds):
            raise ValueError("scenarios names a kind twice")
        if self.layers is not None and self.profile == "replicated":
            raise ValueError("layers are measured on one node each: name another profile, or leave them out")
        return self

    @model_validator(mode="after")
    def _layers_fit(self) -> Self:
        if self.layers and self.layers.events * self.payload_bytes > _LAYER_BYTES_MAX:
            raise ValueError(
                f"layers.events of payload_bytes each are over {_LAYER_BYTES_MAX >> 20} MiB, which a process may "
                f"not hold in memory: ask for at most {_LAYER_BYTES_MAX // self.payload_bytes:,} events"
            )
        return self

    def has_backlog(self, round_number: int) -> bool:
        """Whether a round, counted from 1, has a backlog: the last ones, so that none precedes a steady load."""
        return self.backlog.rounds is None or round_number > self.rounds - self.backlog.rounds


def load_workload(path: Path, rounds: int | None = None, profile: str | None = None) -> Workload:
    """Read and check a workload file; `rounds` and `profile` replace its own. Raises `WorkloadError`."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(
            f"workload {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    except yaml.YAMLError as error:
        raise WorkloadError(f"workload {path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise WorkloadError(
            f"workload {path} must be a mapping with the fields name, seed, users, steady, backlog"
        )
    told = {"rounds": rounds, "profile": profile}
    document |= {name: value for name, value in told.items() if value is not None}
    try:
        return Workload.model_validate(document)
    except ValidationError as error:
        raise WorkloadError(f"workload {path}: {'; '.join(_problem(item) for item in error.errors())}") from None


def _problem(item: Any) -> str:
    field = ".".join(str(part) for part in item["loc"]) or "workload"
    return f"{field}: {item['msg'].removeprefix('Value error, ')}"
