"""Runs each contender with jobs: rates of solo jobs, durations of chords, and how soon an idle one starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from uuid import UUID

from bench import backlog
from bench.backlog import Advance
from bench.commands import CELERY_WORKERS
from bench.contenders import tandem_steps
from bench.errors import BenchError
from bench.jobs import tasks
from bench.jobs.tables import JobTables
from bench.rows import (
    CELERY,
    CHORD,
    JOBS,
    JOBS_RELAYED,
    JOBS_WAITING,
    LEASED,
    LEASED_START,
    LEASED_WAITING,
    START,
    TASK_CHORD,
    TASK_START,
    Contender,
)
from bench.running import Runner, Running
from experiment.clock import until
from shared.jobs import Signature

CHORD_SIZE = 1_000
_WARMING = 50
"""The size of the chord before the one that is measured: everything is loaded and connected then."""
_WARM_STARTS, _STARTS = 10, 40
_IDLE_S = 0.05
_POLL_S = 0.005
_PEAK_MAX_MIB = 256
"""A process that holds what waits in its memory has more."""


@dataclass(frozen=True, slots=True)
class JobRuns:
    """This engine's jobs and Celery's. Beside some, so many jobs are `waiting`."""

    runner: Runner
    tables: JobTables
    waiting: int

    async def measure(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        """Jobs, chords, or starts of an idle system, per second. Raises `BenchError` when a result is missing or
        wrong."""
        measures = {
            JOBS: self._inline,
            JOBS_WAITING: self._inline,
            JOBS_RELAYED: self._inline,
            LEASED: self._leased,
            LEASED_WAITING: self._leased,
            CHORD: self._chord,
            TASK_CHORD: self._task_chord,
            START: self._start,
            LEASED_START: self._start,
            TASK_START: self._task_start,
        }
        return await measures.get(contender.name, self._tasks)(contender, channel, count, advance)

    def _own(self, roles: str) -> dict[str, str]:
        return {
            "TANDEM_POSTGRES_DSN": self.tables.dsn,
            "TANDEM_ROLES": roles,
            "TANDEM_WORKER_CHILDREN_MAX": str(CELERY_WORKERS),
        }

    # -- jobs of one step

    async def _inline(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        """From announcements that wait with the broker, as Celery's tasks do, to stored results.

        Where they are relayed: from rows in the outbox, with the relay in the same process.
        """
        relayed = contender.name == JOBS_RELAYED
        settings = self.runner.settings[contender.broker]
        await self._fill(contender, (tandem_steps.add.s(number, 1) for number in range(count)))
        if not relayed:
            await self.tables.announce(settings)
        advance(count)
        own = self._own("relay,consumer" if relayed else "consumer")
        async with self.runner.running(contender, channel, own) as running:
            rate_per_s = await self._rate(running, count, advance)
        if left := await backlog.unsettled(settings, self.tables.subscription):
            raise running.failed(f"{left} announcements not settled")
        return rate_per_s

    async def _leased(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        """From rows to stored results, by a worker with as many children as Celery has."""
        await self._fill(contender, (tandem_steps.add_in_child.s(number, 1) for number in range(count)))
        advance(count)
        async with self.runner.running(contender, channel, self._own("worker")) as running:
            return await self._rate(running, count, advance)

    async def _fill(self, contender: Contender, graphs: Iterator[Signature]) -> None:
        await self.tables.clear()
        if contender.name in (JOBS_WAITING, LEASED_WAITING):
            await self.tables.have_waiting(self.waiting)
        await self.tables.submit(*graphs)
        await self.tables.settle()

    async def _rate(self, running: Running, count: int, advance: Advance) -> float:
        await running.until(count, self.tables.ended, advance, what="jobs")
        peak_mib = running.peak_mib()
        if sorted(await self.tables.results()) != list(range(1, count + 1)):
            raise running.failed("results are missing or wrong")
        if peak_mib > _PEAK_MAX_MIB:
            raise running.failed(f"it had {peak_mib:.0f} MiB of memory, over the {_PEAK_MAX_MIB} allowed")
        return await self.tables.rate_per_s()

    async def _tasks(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        settings = self.runner.settings["rabbit"]
        async with tasks.open_results(settings) as redis:
            await redis.flushdb()
            await tasks.send(settings, f"{CELERY}.{channel}", count, advance)
            async with self.runner.running(contender, channel) as running:
                await running.until(count, redis.dbsize, advance, what="results")
            return await tasks.rate_per_s(redis, count)

    # -- chords

    async def _chord(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        await self.tables.clear()
        async with self.runner.running(contender, channel, self._own("relay,consumer")) as running:
            for size in _sizes(count):
                began_s = time.perf_counter()
                [job_id] = await self.tables.submit(tandem_steps.chord(size))
                result = await self._result(running, job_id)
                duration_s = time.perf_counter() - began_s
                if result != str(_total(size)):
                    raise running.failed(f"the result of a chord of {size} is {result}")
        advance(2 * count)
        return 1 / duration_s

    async def _task_chord(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        settings = self.runner.settings["rabbit"]
        async with tasks.open_results(settings) as redis:
            await redis.flushdb()
        async with self.runner.running(contender, channel) as running:
            for size in _sizes(count):
                duration_s, result = await tasks.chord(settings, f"{CELERY}.{channel}", size)
                if result != _total(size):
                    raise running.failed(f"the result of a chord of {size} is {result}")
        advance(2 * count)
        return 1 / duration_s

    # -- one at a time

    async def _start(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        """One over the median seconds from the submit until the step begins."""
        await self.tables.clear()
        graph: Signature = tandem_steps.started.s()
        roles = "relay,consumer"
        if contender.name == LEASED_START:
            graph, roles = tandem_steps.started_in_worker.s(), "worker"
        waits_s = []
        async with self.runner.running(contender, channel, self._own(roles)) as running:
            for _ in range(_WARM_STARTS + _STARTS):
                await asyncio.sleep(_IDLE_S)
                began_s = time.monotonic()
                [job_id] = await self.tables.submit(graph)
                await asyncio.sleep(tasks.UNDISTURBED_S)
                waits_s.append(float(await self._result(running, job_id)) - began_s)
        advance(2 * count)
        return 1 / median(waits_s[_WARM_STARTS:])

    async def _task_start(self, contender: Contender, channel: str, count: int, advance: Advance) -> float:
        """The same of a task, from the call of `send_task`."""
        settings = self.runner.settings["rabbit"]
        async with self.runner.running(contender, channel) as running:
            queue = f"{CELERY}.{channel}"
            try:
                median_s = await tasks.median_start_s(settings, queue, _WARM_STARTS, _STARTS, _IDLE_S)
            except BenchError as error:
                raise running.failed(str(error)) from error
        advance(2 * count)
        return 1 / median_s

    async def _result(self, running: Running, job_id: UUID) -> str:
        """A job's result as JSON text. Raises `BenchError` when it has none in time."""
        found: list[str] = []

        async def has_ended() -> bool:
            result = await self.tables.result(job_id)
            found.extend([] if result is None else [result])
            return bool(found)

        if not await until(has_ended, tasks.TIMEOUT_S, _POLL_S):
            raise running.failed(f"job {job_id} did not succeed")
        return found[0]


def _sizes(count: int) -> Iterator[int]:
    yield _WARMING
    yield min(CHORD_SIZE, count)


def _total(size: int) -> int:
    """The result of a chord of this size."""
    return size * (size + 1) // 2
