"""Tasks of Celery with results in Redis: sends them, and reads what came of them."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from statistics import median
from typing import Any

import celery
import celery.exceptions
import orjson
from redis.asyncio import Redis

from bench import committed
from bench.backlog import Advance
from bench.contenders import celery_jobs
from bench.errors import BenchError
from shared.settings import Settings

TIMEOUT_S = 90.0
UNDISTURBED_S = 0.005
"""After a submit nobody asks for so long: what is measured has the processors, ours as a task of Celery's."""


def open_results(settings: Settings) -> Redis:
    """Where results are stored."""
    return Redis.from_url(celery_jobs.results_url(settings))


async def send(settings: Settings, queue: str, count: int, advance: Advance) -> None:
    """Send a task for each number; returns when all are confirmed."""
    await asyncio.to_thread(_send, settings, queue, count, advance)


def _send(settings: Settings, queue: str, count: int, advance: Advance) -> None:
    with _sending(settings, queue) as app, app.producer_pool.acquire(block=True) as producer:
        for number in range(count):
            app.send_task(celery_jobs.ADD, args=[number, 1], queue=queue, producer=producer)
            advance(1)


async def rate_per_s(redis: Redis, count: int) -> float:
    """Results per second from the first to the last. Raises `BenchError` when one is missing or wrong."""
    found = [orjson.loads(value or b"null") for value in await redis.mget(await redis.keys())]
    if sorted(one["result"] for one in found) != list(range(1, count + 1)):
        raise BenchError("results are missing or wrong")
    times = sorted(datetime.fromisoformat(one["date_done"]) for one in found)
    later = sum(time > times[0] for time in times)
    return committed.rate_of("result", later, (times[-1] - times[0]).total_seconds())


async def chord(settings: Settings, queue: str, size: int) -> tuple[float, Any]:
    """Seconds from the call to the result, and the result."""
    return await asyncio.to_thread(_chord, settings, queue, size)


def _chord(settings: Settings, queue: str, size: int) -> tuple[float, Any]:
    with _sending(settings, queue) as app:
        return _chorded(app, size)


def _chorded(app: Any, size: int) -> tuple[float, Any]:
    add, total = app.tasks[celery_jobs.ADD], app.tasks[celery_jobs.TOTAL]
    began_s = time.perf_counter()
    result = celery.chord([add.s(number, 1) for number in range(size)], app=app)(total.s())
    found = _result(result)
    return time.perf_counter() - began_s, found


async def median_start_s(settings: Settings, queue: str, warming: int, count: int, idle_s: float) -> float:
    """The median seconds from sending a task until it begins, one after the other with pauses, those of the first
    `warming` not counted."""
    return await asyncio.to_thread(_median_start_s, settings, queue, warming, count, idle_s)


def _median_start_s(settings: Settings, queue: str, warming: int, count: int, idle_s: float) -> float:
    waits_s: list[float] = []
    with _sending(settings, queue) as app, app.producer_pool.acquire(block=True) as producer:
        for _ in range(warming + count):
            time.sleep(idle_s)
            waits_s.append(_start_s(app, queue, producer))
    return median(waits_s[warming:])


def _start_s(app: Any, queue: str, producer: Any) -> float:
    began_s = time.monotonic()
    result = app.send_task(celery_jobs.STARTED, queue=queue, producer=producer)
    time.sleep(UNDISTURBED_S)
    return float(_result(result)) - began_s


def _result(result: Any) -> Any:
    try:
        return result.get(timeout=TIMEOUT_S)
    except celery.exceptions.TimeoutError as error:
        raise BenchError(f"a task has no result within {TIMEOUT_S:g} s") from error


@contextmanager
def _sending(settings: Settings, queue: str) -> Iterator[Any]:
    app = celery_jobs.create_app(settings, queue)
    try:
        yield app
    finally:
        gc.collect()  # a result asks its server once more when it is collected: while that is there
        app.close()
