"""What a test of jobs stands on: tables, handlers of its own, and a consumer, a relay and a clock for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import text

from shared.broker.base import Message
from shared.broker.connect import create_broker
from shared.consuming.claims import Claims
from shared.consuming.pipeline import Pipeline
from shared.database import Database
from shared.envelope import Envelope
from shared.jobs import reading
from shared.jobs.context import JobContext
from shared.jobs.due import announce_due, make_due
from shared.jobs.errors import Reject
from shared.jobs.events import StepReady
from shared.jobs.jobs import Jobs
from shared.jobs.retries import Retry
from shared.jobs.signatures import Job, Signature, job
from shared.publishing import Submitted
from shared.publishing.relay import Relay
from shared.publishing.uow import UnitsOfWork
from tests.integration.world import INSERT_EFFECT, World, eventually, metadata

TABLES = "job, job_step, job_edge, job_attempt, job_unique, job_schedule, job_worker, inbox, outbox, effect"


@job(retries=Retry(2, initial_s=0.01, max_s=0.05))
async def tag(value: Any, ctx: JobContext, name: str = "", failures: int = 0) -> list[Any]:
    """Keep what it was given, with one effect; its first `failures` attempts fail, after their effect was told."""
    row = {"event_id": str(ctx.step_id), "key": name, "number": ctx.attempt}
    ctx.uow.tell(INSERT_EFFECT, row)
    if ctx.attempt <= failures:
        raise ValueError(f"{name} fails")
    return [name, value]


@job
def add(a: int, b: int) -> int:
    return a + b


@job
def total(numbers: list[int]) -> int:
    return sum(numbers)


@job
def reject(value: Any = None) -> None:
    raise Reject("not this one")


@job(leased=True, retries=Retry(30, initial_s=0.01, max_s=0.05))
async def leased_tag(value: Any, ctx: JobContext, name: str = "", failures: int = 0) -> list[Any]:
    """As `tag`, in a worker, and with attempts enough for all that is killed."""
    ctx.tell(INSERT_EFFECT, {"event_id": str(ctx.step_id), "key": name, "number": ctx.attempt})
    if ctx.attempt <= failures:
        raise ValueError(f"{name} fails")
    return [name, value]


def jobs_on(channel: str, *more: Job[..., Any]) -> Jobs:
    """The tests' handlers and more, whose steps are announced on a channel."""
    names = {"channel": channel, "event_type": f"{channel}.step_ready", "__module__": __name__}
    return Jobs(type("Ready", (StepReady,), names), tag, add, total, reject, *more)


class JobsWorld:
    """One test's jobs; `world` says on which broker."""

    def __init__(self, world: World, dsn: str, *more: Job[..., Any]) -> None:
        self.world = world
        self.jobs = jobs_on(world.name, *more)
        self.subscriber = self.jobs.subscriber("tester")
        self._dsn = dsn

    async def open(self) -> None:
        """Empty the tables."""
        self.database = Database(self.world.settings(postgres_dsn=self._dsn), self.world.name)
        self.world.stack.push_async_callback(self.database.close)
        self.units = UnitsOfWork(self.database, "tester", self.world.telemetry.spans)
        self.units.submitter = self.jobs
        async with self.database.engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
            await connection.execute(text(f"truncate {TABLES} restart identity"))

    async def submit(self, graph: Signature, **options: Any) -> Submitted:
        async with self.units.begin() as uow:
            return await uow.submit(graph, **options)

    # -- looking

    async def rows(self, query: str, **parameters: Any) -> list[Any]:
        async with self.database.transaction() as connection:
            return list(await connection.execute(text(query), parameters))

    async def result(self, task_id: UUID) -> reading.Result:
        async with self.database.transaction() as connection:
            return await reading.result_of(connection, task_id)

    async def states(self, job_id: UUID) -> list[tuple[str, str]]:
        """Handler and state of each step, in order."""
        rows = await self.rows("select handler, state from job_step where job_id = :id order by number", id=job_id)
        return [(row.handler, row.state) for row in rows]

    async def state(self, job_id: UUID) -> str:
        [row] = await self.rows("select state from job where id = :id", id=job_id)
        return str(row.state)

    async def ended(self, count: int = 1) -> None:
        """Wait until so many jobs have ended."""

        async def enough() -> bool:
            [row] = await self.rows("select count(*) as ended from job where finished_at is not null")
            return bool(row.ended >= count)

        await eventually(enough, f"{count} jobs end")

    # -- running

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A consumer, a relay and what makes steps due, over the broker."""
        async with AsyncExitStack() as stack:
            settings = self.world.settings(postgres_dsn=self._dsn)
            claims = Claims(settings)
            stack.push_async_callback(claims.close)
            await stack.enter_async_context(claims.heartbeat())
            broker = await stack.enter_async_context(create_broker(settings, self.world.name))
            pipeline = await self._pipeline(broker, claims)
            await broker.declare((self.world.name,), (pipeline.subscription,))
            await broker.subscribe(pipeline.subscription, pipeline)
            tasks = [
                asyncio.create_task(Relay(settings, broker, self.world.telemetry).run()),
                asyncio.create_task(make_due(self.units, self.jobs.batch)),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks, timeout=10)

    async def pipeline(self) -> Pipeline:
        """The stages alone: call it with `deliver`."""
        return await self._pipeline(await self.world.publisher(), await self.world.claims())

    async def _pipeline(self, broker: Any, claims: Claims) -> Pipeline:
        return Pipeline(
            self.world.settings(postgres_dsn=self._dsn),
            subscriber=self.subscriber,
            broker=broker,
            claims=claims,
            units=self.units,
            telemetry=self.world.telemetry,
        )

    def message(self, envelope: Envelope) -> Message:
        """An announcement as the relay sends it."""
        return Message(self.world.name, envelope.type, envelope.key, envelope.encode())

    async def take_outbox(self) -> list[Envelope]:
        """What waits to be published, taken out of the outbox."""
        rows = await self.rows("delete from outbox returning position, body")
        return [Envelope.decode(row.body) for row in sorted(rows, key=lambda row: row.position)]

    async def run_to_the_end(self, pipeline: Pipeline, batch_max: int = 100) -> int:
        """Hand on what is announced, without a broker, until nothing is open; how many batches that took."""
        batches = 0
        while True:
            await announce_due(self.units, self.jobs.batch)
            events: Sequence[Envelope] = await self.take_outbox()
            if not events and not await self.rows("select 1 from job where finished_at is null"):
                return batches
            for begin in range(0, len(events), batch_max):
                await pipeline(self.world.deliver(events[begin : begin + batch_max]))
                batches += 1
