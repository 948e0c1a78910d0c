"""The same jobs as tasks of Celery with results in Redis, late acknowledgement and a quorum queue.

The worker is `celery -A bench.contenders.celery_jobs worker`; `BENCH_QUEUE` names its queue.
"""

from __future__ import annotations

import os
import time
from typing import Any

from bench.contenders import celery_app
from shared.settings import Settings

ADD, TOTAL, STARTED = "bench.add", "bench.total", "bench.started"
RESULTS_KEPT_S = 600
_RESULTS = 2
"""Of Redis's databases; nothing else is in it, so that its size says how many results there are."""


def results_url(settings: Settings) -> str:
    """Where results are stored."""
    return f"{settings.redis_url.rpartition('/')[0]}/{_RESULTS}"


def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


def total(numbers: list[int]) -> int:
    """The sum of all."""
    return sum(numbers)


def started() -> float:
    """When it began, by the clock that all processes of a host share: seconds of `time.monotonic`."""
    return time.monotonic()


def create_app(settings: Settings, queue: str) -> Any:
    """The Celery application with its tasks, for the worker and for whoever sends to it."""
    app = celery_app.create_app(settings.rabbit_url, queue)
    app.conf.update(result_backend=results_url(settings), task_ignore_result=False, result_expires=RESULTS_KEPT_S)
    app.task(name=ADD)(add)
    app.task(name=TOTAL)(total)
    app.task(name=STARTED)(started)
    return app


app = create_app(Settings.from_environment(), os.environ["BENCH_QUEUE"]) if "BENCH_QUEUE" in os.environ else None
