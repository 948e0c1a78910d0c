"""What each contender's processes are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bench.rows import (
    ACCEPTANCE,
    ACCEPTANCE_TASKS,
    ALONE,
    BY_HAND,
    CELERY,
    CHORD,
    FULL,
    INBOX_ALONE,
    JOBS,
    JOBS_RELAYED,
    JOBS_WAITING,
    LARGER,
    LEASED,
    LEASED_START,
    LEASED_WAITING,
    LONG,
    ONE_BY_ONE,
    ORDER_TASKS,
    ORDERS,
    ORDERS_ALONE,
    OVERLAPPED,
    PAIR,
    RECEIVE,
    RECEIVE_TASKS,
    START,
    TANDEM,
    TASK_CHORD,
    TASK_START,
    TASKS,
    TASKS_IN_THREADS,
    TRANSFER_TASKS,
    TRANSFER_TASKS_HOT,
    UNTRACED,
    WALLET,
    WALLET_HOT,
    WEB,
)

CELERY_WORKERS = 2
TRANSFER_WORKERS = 4
"""More than the cores: each waits for its commit."""
_CELERY = (
    "-m celery -A bench.contenders.{app} worker --pool {pool} --concurrency {concurrency} "
    "--loglevel WARNING --without-gossip --without-mingle --without-heartbeat"
)
_CONSUMER = {"TANDEM_ROLES": "consumer"}
FROZEN_MAX_S = 12
"""For how long Kafka keeps a process in its group that says nothing. It asks every third of that time whether
another has come."""
_STOP_TIMEOUT_S, _IDLE_STOP_TIMEOUT_S = 40.0, 0.7
"""How long a process may take to stop. Celery's on RabbitMQ have done everything when they are told, and settle
within milliseconds; but an idle one hears of the signal when its loop wakes for something else: in up to 10 s.
"""


@dataclass(frozen=True, slots=True)
class Command:
    """Python with these words, in so many processes; `environment` is what makes it this contender.

    `{channel}`, `{name}`, `{broker}`, `{port}` and `{process}`, a number, are filled in.
    """

    words: str
    processes: int = 1
    environment: Mapping[str, str] = field(default_factory=lambda: _CONSUMER)
    stop_timeout_s: float = _STOP_TIMEOUT_S


def _celery(app: str, pool: str, concurrency: int, processes: int = 1) -> Command:
    words = _CELERY.format(app=app, pool=pool, concurrency=concurrency)
    return Command(words + (" --hostname {process}@%h" if processes > 1 else ""), processes)


def _celery_on_rabbit(app: str, pool: str, concurrency: int, processes: int = 1) -> Command:
    return replace(_celery(app, pool, concurrency, processes), stop_timeout_s=_IDLE_STOP_TIMEOUT_S)


def _tandem(processes: int = 1, **environment: str) -> Command:
    words = "-m bench.contenders.tandem {channel} {name}"
    return Command(words, processes, {**_CONSUMER, **environment})


POOLS: Mapping[str, Command] = {
    f"celery, prefork, {CELERY_WORKERS}": _celery_on_rabbit("celery_app", "prefork", CELERY_WORKERS),
    **{
        f"celery, threads, {CELERY_WORKERS} x {count}": _celery_on_rabbit(
            "celery_app", "threads", count, CELERY_WORKERS
        )
        for count in (1, 4, 16)
    },
}
"""Each in two processes that do the work, by their names: which is the fastest, a trial says."""

COMMANDS: Mapping[str, Command] = {
    **dict.fromkeys((TANDEM, LARGER, LONG, FULL), _tandem()),
    UNTRACED: _tandem(TANDEM_TRACE_RATIO="0", TANDEM_OTLP_DIR=""),
    ONE_BY_ONE: _tandem(TANDEM_BATCH_MAX="1"),
    ALONE: _tandem(TANDEM_KAFKA_SESSION_TIMEOUT_S=str(FROZEN_MAX_S)),
    PAIR: _tandem(2, TANDEM_KAFKA_SESSION_TIMEOUT_S=str(FROZEN_MAX_S)),
    BY_HAND: Command("-m bench.contenders.by_hand_{broker} {channel} {name}"),
    OVERLAPPED: Command("-m bench.contenders.by_hand_{broker}_overlapped {channel} {name}"),
    INBOX_ALONE: Command("-m bench.contenders.by_hand_{broker} {channel} {name} --inbox-alone"),
    **POOLS,
    **dict.fromkeys((WALLET, WALLET_HOT, RECEIVE, ACCEPTANCE), Command("-m services.wallet.app")),
    **dict.fromkeys(
        (TRANSFER_TASKS, TRANSFER_TASKS_HOT, ACCEPTANCE_TASKS),
        _celery("celery_transfers", "prefork", TRANSFER_WORKERS),
    ),
    RECEIVE_TASKS: _celery("celery_receive", "prefork", TRANSFER_WORKERS),
    WEB: Command(
        "-m uvicorn bench.contenders.celery_web:app --port {port} --log-level warning --no-access-log",
        environment={},
    ),
    **dict.fromkeys(
        (JOBS, JOBS_RELAYED, JOBS_WAITING, LEASED, LEASED_WAITING, CHORD, START, LEASED_START),
        Command("-m bench.contenders.tandem_jobs"),
    ),
    **dict.fromkeys((TASKS, TASK_CHORD, TASK_START), _celery_on_rabbit("celery_jobs", "prefork", CELERY_WORKERS)),
    TASKS_IN_THREADS: _celery_on_rabbit("celery_jobs", "threads", CELERY_WORKERS),
    ORDERS: Command("-m services.order.app", environment={"TANDEM_ROLES": "api,relay"}),
    ORDERS_ALONE: Command("-m bench.contenders.orders_alone", environment={"TANDEM_ROLES": "api"}),
    ORDER_TASKS: Command("-m bench.contenders.celery_orders", environment={}),
}

assert CELERY not in COMMANDS, "it is whichever of the pools is the fastest"
