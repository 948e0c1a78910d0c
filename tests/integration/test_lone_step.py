"""A step that comes alone, is not read before it runs and is its job's only one: its end is one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection

from deploy.native import Runtime
from shared.broker.base import Settlement
from shared.consuming.pipeline import Pipeline
from shared.jobs.control import cancel
from tests.integration.databases import migrated_database
from tests.integration.jobs_world import JobsWorld, add
from tests.integration.world import World

ACK = Settlement.ACK


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


@pytest.fixture
async def jobs(rabbit_world: World, dsn: str) -> JobsWorld:
    made = JobsWorld(rabbit_world, dsn)
    await made.open()
    return made


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each time that PostgreSQL might have been told of the begin of a transaction, whether it was."""
    begin: Any = AsyncAdapt_asyncpg_connection._start_transaction
    begun: list[bool] = []

    async def noted(self: Any) -> None:
        await begin(self)
        begun.append(self._transaction is not None)

    monkeypatch.setattr(AsyncAdapt_asyncpg_connection, "_start_transaction", noted)
    return begun


async def deliver(jobs: JobsWorld, pipeline: Pipeline) -> Sequence[Settlement]:
    """The one announcement that waits."""
    [announcement] = await jobs.take_outbox()
    return await pipeline(jobs.world.deliver([announcement]))


async def test_it_ends_with_its_job_and_its_row_in_the_inbox_without_a_transaction(
    jobs: JobsWorld, begun: list[bool]
) -> None:
    heard: list[tuple[str, str, float]] = []
    jobs.jobs._on_ended = lambda *ended: heard.append(ended)
    pipeline = await jobs.pipeline()
    for _ in range(3):  # what was seen twice goes another way to the driver
        submitted = await jobs.submit(add.s(1, 2), kind="sum")
        [announcement] = await jobs.take_outbox()
        begun.clear()
        assert await pipeline(jobs.world.deliver([announcement])) == [ACK]
        assert not any(begun)
        assert (await jobs.result(submitted.job_id)).value == 3
        assert await jobs.state(submitted.job_id) == "succeeded"
    assert [(kind, state) for kind, state, _ in heard] == [("sum", "succeeded")] * 3
    assert all(0 <= duration_s < 60 for *_, duration_s in heard)
    assert len(await jobs.rows("select 1 from inbox")) == 3
    assert jobs.jobs._doubted == set()


async def test_it_ends_once_though_redis_has_forgotten_it(jobs: JobsWorld) -> None:
    heard: list[str] = []
    jobs.jobs._on_ended = lambda kind, *_: heard.append(kind)
    await jobs.submit(add.s(1, 2))
    [announcement] = await jobs.take_outbox()
    for _ in range(2):
        claims = await jobs.world.claims()
        pipeline = await jobs._pipeline(await jobs.world.publisher(), claims)
        assert await pipeline(jobs.world.deliver([announcement])) == [ACK]
        await claims._redis.flushall()
    assert heard == ["add"]
    assert [row.open_steps for row in await jobs.rows("select open_steps from job")] == [0]


async def test_one_that_was_cancelled_meanwhile_is_announced_for_nothing(jobs: JobsWorld) -> None:
    heard: list[str] = []
    jobs.jobs._on_ended = lambda kind, *_: heard.append(kind)
    submitted = await jobs.submit(add.s(1, 2))
    async with jobs.units.begin() as uow:
        await cancel(uow, submitted.job_id)
    heard.clear()
    assert await deliver(jobs, await jobs.pipeline()) == [ACK]
    assert await jobs.state(submitted.job_id) == "cancelled"
    assert (heard, await jobs.world.dead_letters()) == ([], [])


async def test_one_that_does_not_exist_is_a_dead_letter_at_its_second_run(jobs: JobsWorld) -> None:
    jobs.world.default_overrides.update(handler_attempts_max=2)
    submitted = await jobs.submit(add.s(1, 2))
    await _forget(jobs, submitted.job_id)
    assert await deliver(jobs, await jobs.pipeline()) == [ACK]
    [letter] = await jobs.world.await_dead_letters(1)
    assert letter.headers["tandem-error-type"] == "UnknownStepError"
    assert await jobs.rows("select 1 from inbox") == []


async def _forget(jobs: JobsWorld, job_id: UUID) -> None:
    await jobs.rows("delete from job_step where job_id = :id returning id", id=job_id)
    await jobs.rows("delete from job where id = :id returning id", id=job_id)
