"""The rows of the benchmark: which contender is divided by which, and what the ratio must reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

TANDEM = "tandem"
BY_HAND = "hand-written"
OVERLAPPED = "hand-written, overlapped"
INBOX_ALONE = "hand-written, inbox alone"
CELERY = "celery"
ONE_BY_ONE = "tandem, batches of one"
PAIR = "tandem, two processes"
ALONE = "tandem, one process"
"""On the same backlog, in the same way, as the two."""
IDLE = "cores idle beside one process"
"""Measured with the one before: what a second process could have."""
LARGER = "tandem, a larger backlog"
"""On Kafka, where it has more events than those of a round: these take a quarter of a second."""
UNTRACED = "tandem, nothing traced"
"""On as many events."""
LONG = "tandem, a long backlog"
PEAK, LONG_PEAK = "tandem, memory", "tandem, memory with a long backlog"
"""The most that the process has had."""
FULL = "tandem, a full inbox"
WALLET = "wallet"
WALLET_HOT = "wallet, one hot account"
TRANSFER_TASKS = "celery transfers"
TRANSFER_TASKS_HOT = "celery transfers, one hot account"
JOBS = "jobs"
JOBS_RELAYED = "jobs, relayed"
JOBS_WAITING = "jobs beside waiting ones"
LEASED = "leased jobs"
LEASED_WAITING = "leased jobs beside waiting ones"
START = "idle start"
LEASED_START = "idle start, leased"
TASK_START = "celery idle start"
TASKS = "celery jobs"
TASKS_IN_THREADS = "celery jobs, threads"
CHORD = "chord"
TASK_CHORD = "celery chord"
RECEIVE = "receive"
RECEIVE_TASKS = "celery receive"
ACCEPTANCE = "acceptance"
ACCEPTANCE_TASKS = "celery acceptance"
WEB = "fastapi"
"""In front of the tasks of the two above."""
RELAY = "relay"
RAW = "raw publish"
ORDERS = "orders"
ORDERS_ALONE = "orders, no outbox row"
ORDER_TASKS = "orders, FastAPI and Celery"
ORDER_P50, ORDER_P99 = "order to effect, p50", "order to effect, p99"
TASK_P50, TASK_P99 = "order to effect, FastAPI and Celery, p50", "order to effect, FastAPI and Celery, p99"

OF_EVENTS = (RELAY, RAW)
"""They publish a backlog of events, in this process."""
OF_MONEY = (WALLET, WALLET_HOT, TRANSFER_TASKS, TRANSFER_TASKS_HOT)
"""They execute transfers, by the wallet or by tasks of Celery on Redis."""
OF_ANSWERS = (RECEIVE, RECEIVE_TASKS, ACCEPTANCE, ACCEPTANCE_TASKS)
"""They answer requests over HTTP that come so many a second: the wallet, or FastAPI and Celery on Redis."""
OF_JOBS = (
    *(JOBS, JOBS_RELAYED, JOBS_WAITING, LEASED, LEASED_WAITING, TASKS, TASKS_IN_THREADS),
    *(CHORD, TASK_CHORD, START, LEASED_START, TASK_START),
)
"""They run jobs and store their results."""
OF_LATENCY = (ORDER_P50, ORDER_P99, TASK_P50, TASK_P99)
"""How long it is from a request to its effect."""
OF_ORDERS = (ORDERS, ORDERS_ALONE, ORDER_TASKS, *OF_LATENCY)
"""They take orders over HTTP. All that are not named here drain a backlog of events."""
BY_CELERY = (CELERY, TRANSFER_TASKS, TRANSFER_TASKS_HOT, TASKS, TASKS_IN_THREADS, TASK_CHORD, TASK_START)
_ELSEWHERE = {
    **dict.fromkeys((*BY_CELERY, ORDER_TASKS, TASK_P50, TASK_P99), "rabbit"),
    **dict.fromkeys((TRANSFER_TASKS, TRANSFER_TASKS_HOT, RECEIVE_TASKS, ACCEPTANCE_TASKS), "redis"),
}
"""The broker of what runs on one alone."""
PER_S = "per second"
UNITS: Mapping[str, str] = {
    **dict.fromkeys(OF_ANSWERS, "ms at the 99th percentile"),
    **dict.fromkeys(OF_LATENCY, "ms"),
    IDLE: "cores",
    PEAK: "MiB",
    LONG_PEAK: "MiB",
}
"""What the figures of contenders are in, where it is not events, transfers, jobs or chords per second."""


@dataclass(frozen=True, slots=True)
class Contender:
    """What is measured, and its broker."""

    name: str
    broker: str

    def __str__(self) -> str:
        return f"{self.name} on {self.broker}"


@dataclass(frozen=True, slots=True)
class Division:
    """A row: `ours` divided by `theirs`, on one broker; `name` is what `--row` calls it.

    The ratio must not be under `limit`; where lower is better (both are times, or costs), not over it. Nor must
    the figure of `ours` be over `ours_max`, where that is said. What wants a core of its own has `crowded_limit`,
    too: what holds instead where less than `CORE_FREE` of one was idle beside `theirs`.
    """

    name: str
    ours: Contender
    theirs: Contender
    limit: float
    lower_is_better: bool = False
    ours_max: float | None = None
    crowded_limit: float | None = None

    @property
    def broker(self) -> str:
        return self.ours.broker


def _row(name: str, ours: str, theirs: str, broker: str, floor: float) -> Division:
    return Division(name, Contender(ours, broker), Contender(theirs, _ELSEWHERE.get(theirs, broker)), floor)


def _low(  # noqa: PLR0917 - as `_row`, and one more
    name: str, ours: str, theirs: str, broker: str, ceiling: float, ours_max: float | None = None
) -> Division:
    """A row in which lower is better."""
    return replace(_row(name, ours, theirs, broker, ceiling), lower_is_better=True, ours_max=ours_max)


CORE_FREE = 1.0
"""So many cores must be idle, that one is free."""

# What a row is to reach, not what it reaches: docs/benchmark.md says which do.
ROWS = (
    _row("hand-written", TANDEM, BY_HAND, "rabbit", 0.85),
    _row("hand-written", LARGER, BY_HAND, "kafka", 0.85),
    _row("overlapped", LARGER, OVERLAPPED, "kafka", 0.55),
    _row("inbox-alone", TANDEM, INBOX_ALONE, "rabbit", 0.5),
    _row("inbox-alone", TANDEM, INBOX_ALONE, "kafka", 0.5),
    _row("celery", TANDEM, CELERY, "rabbit", 7.0),
    _row("batches-of-one", ONE_BY_ONE, CELERY, "rabbit", 1.2),
    # RabbitMQ has one active consumer, so that order is kept: a second process stands by, and must cost nothing.
    # No more can be asked of one on Kafka, where there is no core for it.
    _row("two-processes", PAIR, ALONE, "rabbit", 0.8),
    replace(_row("two-processes", PAIR, ALONE, "kafka", 1.3), crowded_limit=0.8),
    _row("relay", RELAY, RAW, "rabbit", 0.6),
    _row("relay", RELAY, RAW, "kafka", 0.6),
    _row("orders", ORDERS, ORDERS_ALONE, "rabbit", 0.75),
    _row("orders", ORDERS, ORDERS_ALONE, "kafka", 0.75),
    _row("orders-celery", ORDERS, ORDER_TASKS, "rabbit", 2.0),
    _low("latency", ORDER_P50, TASK_P50, "rabbit", 1.0),
    _low("latency", ORDER_P99, TASK_P99, "rabbit", 1.0),
    _row("traced", TANDEM, UNTRACED, "rabbit", 0.8),
    _row("traced", LARGER, UNTRACED, "kafka", 0.8),
    _row("backlog", LONG, TANDEM, "rabbit", 0.9),
    _row("backlog", LONG, TANDEM, "kafka", 0.9),
    _low("backlog", LONG_PEAK, PEAK, "rabbit", 1.2),
    _low("backlog", LONG_PEAK, PEAK, "kafka", 1.2),
    _row("full-inbox", FULL, TANDEM, "rabbit", 0.8),
    _row("full-inbox", FULL, TANDEM, "kafka", 0.8),
    _row("transfers", WALLET, TRANSFER_TASKS, "rabbit", 2.5),
    _row("transfers", WALLET, TRANSFER_TASKS, "kafka", 4.0),
    _row("hot-account", WALLET_HOT, TRANSFER_TASKS_HOT, "rabbit", 1.5),
    _row("hot-account", WALLET_HOT, TRANSFER_TASKS_HOT, "kafka", 1.5),
    _low("receive", RECEIVE, RECEIVE_TASKS, "rabbit", 0.5),
    _low("receive", RECEIVE, RECEIVE_TASKS, "kafka", 0.5),
    _low("acceptance", ACCEPTANCE, ACCEPTANCE_TASKS, "rabbit", 10.0, ours_max=100.0),
    _low("acceptance", ACCEPTANCE, ACCEPTANCE_TASKS, "kafka", 10.0, ours_max=100.0),
    _row("jobs", JOBS, TASKS, "rabbit", 3.0),
    _row("jobs", JOBS, TASKS, "kafka", 5.0),
    _row("jobs-relayed", JOBS_RELAYED, TASKS, "rabbit", 0.5),
    _row("jobs-relayed", JOBS_RELAYED, TASKS, "kafka", 0.5),
    _row("jobs-threads", JOBS, TASKS_IN_THREADS, "rabbit", 3.0),
    _row("jobs-threads", JOBS, TASKS_IN_THREADS, "kafka", 5.0),
    _row("chord", CHORD, TASK_CHORD, "rabbit", 2.0),
    _row("chord", CHORD, TASK_CHORD, "kafka", 2.0),
    _row("leased", LEASED, TASKS, "rabbit", 1.0),  # a worker does not know the broker
    _row("jobs-idle", START, TASK_START, "rabbit", 1.0),
    _row("jobs-idle", START, TASK_START, "kafka", 1.0),
    _row("jobs-idle", LEASED_START, TASK_START, "rabbit", 1.0),
    _row("jobs-waiting", JOBS_WAITING, JOBS, "rabbit", 0.9),
    _row("jobs-waiting", JOBS_WAITING, JOBS, "kafka", 0.9),
    _row("jobs-waiting", LEASED_WAITING, LEASED, "rabbit", 0.9),
)
START_UP = "start-up"
"""The row that is no ratio: seconds from `make up-*` to the first effect."""
LIMITS = "limits"
"""Nor is this one: what the parts of an event's way take by themselves (`bench.limits`)."""
NAMES = (*dict.fromkeys(row.name for row in ROWS), LIMITS, START_UP)
_MONEY = ("transfers", "hot-account", "receive", "acceptance")
_JOBS = ("jobs", "jobs-relayed", "jobs-threads", "chord", "leased", "jobs-idle", "jobs-waiting")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "events": tuple(name for name in NAMES if name not in {*_MONEY, *_JOBS, LIMITS}),
    "money": _MONEY,
    "jobs": _JOBS,
}
"""Rows that are run together, the first where nothing is said. `limits` is in none: `make profile` runs it."""
