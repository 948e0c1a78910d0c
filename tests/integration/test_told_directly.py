"""Steps that a consumer hears of from its database, beside the broker, and what the broker's copy finds."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
import pytest

from deploy.native import Runtime
from shared.broker import Delivery, Settlement
from shared.broker.connect import create_broker
from shared.consuming import hear_directly
from shared.consuming.claims import Claims
from shared.failpoints import AFTER_EFFECT
from shared.publishing.relay import Relay
from tests.forked import fork
from tests.integration.databases import migrated_database
from tests.integration.jobs_world import JobsWorld, tag
from tests.integration.world import World, eventually

_LISTENING = "from pg_stat_activity where application_name = 'tester-direct' and query ilike 'listen%'"


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


class Listening:
    """A consumer that hears of steps directly. Its relay runs from when it is told to."""

    def __init__(self, jobs: JobsWorld, dsn: str, stack: AsyncExitStack) -> None:
        self._jobs = jobs
        self._settings = jobs.world.settings(postgres_dsn=dsn)
        self._stack = stack
        self.copies: list[Settlement] = []
        """What was answered to the broker."""

    async def begin(self) -> None:
        settings, name = self._settings, self._jobs.world.name
        claims = Claims(settings)
        self._stack.push_async_callback(claims.close)
        await self._stack.enter_async_context(claims.heartbeat())
        self._broker = await self._stack.enter_async_context(create_broker(settings, name))
        self._pipeline = await self._jobs._pipeline(self._broker, claims)
        await self._broker.declare((name,), (self._pipeline.subscription,))
        await self._broker.subscribe(self._pipeline.subscription, self._answer)
        assert self._pipeline.direct is not None
        self._run(hear_directly(settings, "tester", [self._pipeline.direct]))
        await until_somebody_listens(self._jobs)

    def begin_to_relay(self) -> None:
        self._relaying = self._run(Relay(self._settings, self._broker, self._jobs.world.telemetry).run())

    async def stop_relaying(self) -> None:
        self._relaying.cancel()
        await asyncio.wait([self._relaying], timeout=10)

    async def until_copies_came(self, count: int) -> None:
        async def all_came() -> bool:
            return len(self.copies) >= count

        await eventually(all_came, f"{count} copies come by the broker")

    async def _answer(self, deliveries: Sequence[Delivery]) -> Sequence[Settlement]:
        settlements = await self._pipeline(deliveries)
        self.copies += settlements
        return settlements

    def _run(self, loop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(loop)
        self._stack.push_async_callback(asyncio.wait, [task], timeout=10)
        self._stack.callback(task.cancel)
        return task


@asynccontextmanager
async def listening(jobs: JobsWorld, dsn: str) -> AsyncIterator[Listening]:
    async with AsyncExitStack() as stack:
        consumer = Listening(jobs, dsn, stack)
        await consumer.begin()
        yield consumer


async def until_somebody_listens(jobs: JobsWorld) -> None:
    async def listens() -> bool:
        return bool(await jobs.rows(f"select 1 {_LISTENING}"))

    await eventually(listens, "a consumer listens")


async def opened(world: World, dsn: str) -> JobsWorld:
    jobs = JobsWorld(world, dsn)
    await jobs.open()
    return jobs


async def test_a_lone_step_runs_without_a_relay_and_its_copy_does_nothing(world: World, dsn: str) -> None:
    jobs = await opened(world, dsn)
    async with listening(jobs, dsn) as consumer:
        submitted = await jobs.submit(tag.s("ä", name="lone"))
        await jobs.ended()
        assert len(await jobs.rows("select 1 from outbox")) == 1, "it is to be published as ever"
        consumer.begin_to_relay()
        await consumer.until_copies_came(1)
        assert consumer.copies == [Settlement.ACK]
        assert (await jobs.result(submitted.job_id)).value == ["lone", "ä"]
        assert len(await jobs.rows("select 1 from effect")) == 1


async def test_without_its_session_steps_come_by_the_broker_and_with_the_next_directly(
    rabbit_world: World, dsn: str
) -> None:
    rabbit_world.default_overrides.update(retry_wait_initial_s=2.0, retry_wait_max_s=2.0)
    jobs = await opened(rabbit_world, dsn)
    async with listening(jobs, dsn) as consumer:
        await jobs.rows(f"select pg_terminate_backend(pid) {_LISTENING}")
        await jobs.submit(tag.s(1, name="by the broker"))
        consumer.begin_to_relay()
        await jobs.ended()
        await consumer.until_copies_came(1)
        await until_somebody_listens(jobs)
        await consumer.stop_relaying()
        await jobs.submit(tag.s(1, name="directly"))
        await jobs.ended(2)
        assert len(consumer.copies) == 1


async def test_a_process_that_dies_of_what_it_heard_leaves_it_to_the_copy(rabbit_world: World, dsn: str) -> None:
    rabbit_world.default_overrides.update(heartbeat_interval_s=0.5, heartbeat_ttl_s=2.0)
    jobs = await opened(rabbit_world, dsn)
    values = rabbit_world.setting_values(postgres_dsn=dsn, failpoints=f"{AFTER_EFFECT}=kill")
    dying = await fork(
        "tests.integration.jobs_process", jobs.world.name, orjson.dumps(values).decode(), "no relay"
    )
    try:
        await until_somebody_listens(jobs)
        submitted = await jobs.submit(tag.s(1, name="killer"))
        assert await dying.wait(60) == -signal.SIGKILL, "nobody but its database has told it of the step"
    finally:
        dying.kill()
    assert await jobs.rows("select 1 from inbox union all select 1 from effect") == []
    async with jobs.running():
        await jobs.ended()
    assert (await jobs.result(submitted.job_id)).value == ["killer", 1]
    assert len(await jobs.rows("select 1 from effect")) == 1
