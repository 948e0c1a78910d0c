"""Measures jobs with stored results: of this engine, and the same as tasks of Celery with results in Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import asyncpg
import celery
import orjson
from redis.asyncio import Redis

from bench import committed
from bench.backlog import Advance
from bench.contenders import celery_jobs, tandem_jobs
from bench.rows import CELERY, CHORD, JOBS, TASK_CHORD, Contender
from bench.running import Runner
from experiment.clock import until
from shared.database import Database
from shared.jobs import Signature
from shared.migrate import bring_up_to_date
from shared.publishing import UnitsOfWork
from shared.settings import Settings
from shared.telemetry import Telemetry

CHORD_SIZE = 1_000
_WARMING = 50
"""The size of the chord before the one that is measured: everything is loaded and connected then."""
_PER_UNIT = 200
_TIMEOUT_S = 90.0
_POLL_S = 0.005

_CLEAR = "truncate job, job_step, job_edge, job_attempt, job_unique, inbox, outbox"
_ENDED = "select count(*) from job where finished_at is not null"
_RESULTS = "select s.result::text from job_step s join job j on j.id = s.job_id where j.state = 'succeeded'"


class JobTables:
    """A database of this engine's; an async context manager."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._telemetry = telemetry

    async def __aenter__(self) -> Self:
        await bring_up_to_date("jobs", self._settings.postgres_dsn)
        self._postgres = await asyncpg.connect(self._settings.postgres_dsn)
        self._database = Database(self._settings, "bench-jobs")
        self._units = UnitsOfWork(self._database, "bench", self._telemetry.spans)
        self._units.submitter = tandem_jobs.JOBS
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._database.close()
        await self._postgres.close()

    @property
    def dsn(self) -> str:
        return self._settings.postgres_dsn

    async def clear(self) -> None:
        """Forget what there was."""
        await self._postgres.execute(_CLEAR)
        await self._postgres.execute("checkpoint")

    async def submit(self, *graphs: Signature) -> None:
        """Submit these, some in each transaction."""
        for start in range(0, len(graphs), _PER_UNIT):
            async with self._units.begin() as uow:
                for graph in graphs[start : start + _PER_UNIT]:
                    await uow.submit(graph)

    async def ended(self) -> int:
        """How many jobs have ended."""
        return int(await self._postgres.fetchval(_ENDED))

    async def results(self) -> list[int]:
        """Of the steps of jobs that succeeded."""
        return [int(row[0]) for row in await self._postgres.fetch(_RESULTS)]

    async def rate_per_s(self) -> float:
        """Jobs per second from the first commit of an end to the last."""
        return await committed.rate_per_s(self._postgres, "job")


@dataclass(frozen=True, slots=True)
class JobRuns:
    """This engine's jobs and Celery's."""

    runner: Runner
    tables: JobTables

    async def measure(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        """Jobs, or chords, per second. Raises `BenchError` when a result is missing or wrong."""
        measures = {JOBS: self._solo, CHORD: self._chord, TASK_CHORD: self._task_chord}
        return await measures.get(contender.name, self._tasks)(contender, channel, count, advance)

    @property
    def _own(self) -> dict[str, str]:
        return {"TANDEM_POSTGRES_DSN": self.tables.dsn, "TANDEM_ROLES": "relay,consumer"}

    async def _solo(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        """From rows in the outbox to stored results: with the relay, which Celery's tasks have behind them."""
        await self.tables.clear()
        await self.tables.submit(*(tandem_jobs.add.s(number, 1) for number in range(count)))
        advance(count)
        async with self.runner.running(contender, channel, self._own) as running:
            await running.until(count, self.tables.ended, advance, what="jobs")
        if sorted(await self.tables.results()) != list(range(1, count + 1)):
            raise running.failed("results are missing or wrong")
        return await self.tables.rate_per_s()

    async def _tasks(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        settings = self.runner.settings["rabbit"]
        async with Redis.from_url(celery_jobs.results_url(settings)) as redis:
            await redis.flushdb()
            await asyncio.to_thread(_send, settings, f"{CELERY}.{channel}", count, advance)
            async with self.runner.running(contender, channel) as running:
                await running.until(count, redis.dbsize, advance, what="results")
            found = [orjson.loads(value or b"null") for value in await redis.mget(await redis.keys())]
        if sorted(one["result"] for one in found) != list(range(1, count + 1)):
            raise running.failed("results are missing or wrong")
        times = sorted(datetime.fromisoformat(one["date_done"]) for one in found)
        later = sum(time > times[0] for time in times)
        return committed.rate_of("result", later, (times[-1] - times[0]).total_seconds())

    async def _chord(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        await self.tables.clear()
        async with self.runner.running(contender, channel, self._own) as running:
            durations_s = []
            for number, size in enumerate(_sizes(count), start=1):
                began_s = time.perf_counter()
                await self.tables.submit(tandem_jobs.chord(size))

                async def ended(number: int = number) -> bool:
                    return await self.tables.ended() == number

                if not await until(ended, _TIMEOUT_S, _POLL_S):
                    raise running.failed(f"a chord of {size} did not end")
                durations_s.append(time.perf_counter() - began_s)
        if max(await self.tables.results()) != _total(max(_sizes(count))):
            raise running.failed("the result is wrong")
        advance(2 * count)
        return 1 / durations_s[-1]

    async def _task_chord(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        settings = self.runner.settings["rabbit"]
        async with Redis.from_url(celery_jobs.results_url(settings)) as redis:
            await redis.flushdb()
        async with self.runner.running(contender, channel) as running:
            for size in _sizes(count):
                duration_s, result = await asyncio.to_thread(_chord, settings, f"{CELERY}.{channel}", size)
                if result != _total(size):
                    raise running.failed(f"the result of a chord of {size} is {result}")
        advance(2 * count)
        return 1 / duration_s


def _sizes(count: int) -> Iterator[int]:
    yield _WARMING
    yield min(CHORD_SIZE, count)


def _total(size: int) -> int:
    """The result of a chord of this size."""
    return size * (size + 1) // 2


def _send(settings: Settings, queue: str, count: int, advance: Advance) -> None:
    """Send a task for each number. Blocks until all are confirmed."""
    app = celery_jobs.create_app(settings, queue)
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(count):
            app.send_task(celery_jobs.ADD, args=[number, 1], queue=queue, producer=producer)
            advance(1)
    app.close()


def _chord(settings: Settings, queue: str, size: int) -> tuple[float, Any]:
    """Seconds from the call to the result, and the result."""
    app = celery_jobs.create_app(settings, queue)
    add, total = app.tasks[celery_jobs.ADD], app.tasks[celery_jobs.TOTAL]
    began_s = time.perf_counter()
    result = celery.chord([add.s(number, 1) for number in range(size)], app=app)(total.s())
    found = result.get(timeout=_TIMEOUT_S)
    took_s = time.perf_counter() - began_s
    app.close()
    return took_s, found
