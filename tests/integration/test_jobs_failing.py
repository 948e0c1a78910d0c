"""Steps that go wrong in ways that no outcome can record, and handlers that send before they fail: graphs end."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from deploy.native import Runtime
from shared.jobs.context import JobContext
from shared.jobs.due import announce_due
from shared.jobs.lost import end_lost
from shared.jobs.retries import Retry
from shared.jobs.signatures import Job, chain, group, job
from tests.integration.databases import migrated_database
from tests.integration.jobs_world import JobsWorld, add, tag
from tests.integration.world import INSERT_EFFECT, World


@job
async def unknown_later(a: int = 1) -> int:
    return a


@job(name="unknown_later")
async def takes_a_text(a: str) -> str:
    return a


@job(soft_s=0.05, retries=Retry(1, initial_s=0.01))
async def slow() -> None:
    await asyncio.Event().wait()


@job(soft_s=0.05)
async def slow_statement(ctx: JobContext) -> None:
    await ctx.uow.connection.execute(text("select pg_sleep(20)"))


@job(retries=Retry(1, initial_s=0.01))
async def sends_and_fails(ctx: JobContext) -> None:
    ctx.uow.tell(INSERT_EFFECT, {"event_id": str(ctx.step_id), "key": "sent", "number": ctx.attempt})
    await ctx.uow.flush()
    if ctx.attempt == 1:
        raise ValueError("after it sent")


@job(retries=Retry(0))
async def breaks_its_transaction(ctx: JobContext) -> None:
    await ctx.uow.connection.execute(text("select 1 / 0"))


@job(retries=Retry(0))
async def tells_nonsense(ctx: JobContext) -> None:
    ctx.uow.tell(INSERT_EFFECT, {"event_id": None, "key": "x", "number": 1})


@job
def returns_too_much() -> str:
    return "x" * 70_000


@job
async def submits(ctx: JobContext) -> None:
    await ctx.uow.submit(tag.s(1, name="child"), unique="child")
    if ctx.attempt == 1:
        raise ValueError("after it submitted")


OWN = (unknown_later, slow, slow_statement, sends_and_fails, breaks_its_transaction, tells_nonsense)
MORE = (returns_too_much, submits)


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


@pytest.fixture
async def jobs(rabbit_world: World, dsn: str) -> JobsWorld:
    rabbit_world.default_overrides |= {"handler_attempts_max": 2}
    made = JobsWorld(rabbit_world, dsn, *OWN, *MORE)
    await made.open()
    return made


@pytest.mark.parametrize("handlers", [(), (takes_a_text,)])
async def test_a_step_that_nobody_can_run_is_a_dead_letter_and_fails(
    jobs: JobsWorld, dsn: str, handlers: tuple[Job[..., str], ...]
) -> None:
    submitted = await jobs.submit(chain(unknown_later.s(1), add.s(1)))
    others = JobsWorld(jobs.world, dsn, *handlers)
    others.database, others.units = jobs.database, jobs.units
    await others.run_to_the_end(await others.pipeline())
    assert await jobs.states(submitted.job_id) == [("unknown_later", "failed"), ("add", "skipped")]
    [letter] = await jobs.world.await_dead_letters(1)
    assert str(submitted.job_id).encode() in letter.body


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        (slow, "TimeLimitError"),
        (slow_statement, "CutOffError"),
        (breaks_its_transaction, "DBAPIError"),
        (tells_nonsense, "IntegrityError"),
        (returns_too_much, "ResultTooLargeError"),
    ],
)
@pytest.mark.parametrize("beside", [0, 2])
async def test_a_step_that_fails_badly_fails_alone(
    jobs: JobsWorld, failing: Job[..., None], error: str, beside: int
) -> None:
    graph = group(*(tag.s(n, name="good") for n in range(beside)), failing.s())
    submitted = await jobs.submit(graph)
    await jobs.run_to_the_end(await jobs.pipeline())
    states = [state for _, state in await jobs.states(submitted.job_id)]
    assert states == ["succeeded"] * beside + ["failed"]
    result = await jobs.result(submitted.job_id)
    assert result.error["type"] == error
    assert [member.value for member in result.members or ()] == [["good", n] for n in range(beside)] + [None]
    assert len(await jobs.rows("select 1 from effect")) == beside


async def test_a_step_whose_announcement_is_lost_is_announced_again_and_fails_in_the_end(jobs: JobsWorld) -> None:
    found = await jobs.submit(tag.s(1, name="found"))
    lost = await jobs.submit(chain(tag.s(1, name="lost"), tag.s()))
    await jobs.submit(tag.s(1, name="young"))
    [_, _, young] = await jobs.take_outbox()
    await jobs.rows("update job_step set due_at = now() - interval '2 h' where id <> :id returning id",
                    id=young.data["step_id"])  # fmt: skip
    looking = (jobs.units, jobs.jobs.batch, jobs.jobs.handlers, 3_600.0)
    assert await end_lost(*looking) == 2
    assert [state for _, state in await jobs.states(found.job_id)] == ["scheduled"]
    await jobs.rows("update job_step set first_attempt = -9 where job_id = :id returning id", id=lost.job_id)
    await jobs.rows("update job_step set due_at = now() where state = 'scheduled' returning id")
    await announce_due(jobs.units, jobs.jobs.batch)
    await jobs.rows("update job_step set due_at = now() - interval '2 h' where job_id = :id returning id",
                    id=lost.job_id)  # fmt: skip
    assert await end_lost(*looking) == 1
    assert [state for _, state in await jobs.states(lost.job_id)] == ["failed", "skipped"]
    await (await jobs.pipeline())(jobs.world.deliver([young]))
    await jobs.run_to_the_end(await jobs.pipeline())
    assert sorted(row.key for row in await jobs.rows("select key from effect")) == ["found", "young"]


@pytest.mark.parametrize("beside", [0, 2])
async def test_what_a_handler_sent_before_it_failed_is_taken_back(jobs: JobsWorld, beside: int) -> None:
    await jobs.submit(group(*(tag.s(n) for n in range(beside)), sends_and_fails.s()))
    await jobs.run_to_the_end(await jobs.pipeline())
    assert [row.number for row in await jobs.rows("select number from effect where key = 'sent'")] == [2]


@pytest.mark.parametrize("beside", [0, 2])
async def test_a_job_that_a_failed_attempt_submitted_never_was(jobs: JobsWorld, beside: int) -> None:
    await jobs.submit(group(*(tag.s(n) for n in range(beside)), submits.s()))
    await jobs.run_to_the_end(await jobs.pipeline())
    assert len(await jobs.rows("select 1 from effect where key = 'child'")) == 1
    assert len(await jobs.rows("select 1 from job")) == 2
