"""Jobs on real servers: what is submitted runs, fails, is tried again, cancelled and retried as its rows say."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest

from deploy.native import Runtime
from deploy.paths import REPOSITORY
from examples import baskets
from shared.envelope import Envelope
from shared.jobs import Signature, store
from shared.jobs.control import JobNotFoundError, JobStateError, cancel, retry
from shared.jobs.jobs import RESULT_TTL_S
from shared.jobs.reading import Outcome
from shared.jobs.signatures import chain, chord, group, map_over
from tests.integration.databases import migrated_database
from tests.integration.jobs_world import JobsWorld, add, reject, tag, total
from tests.integration.world import World

SUMMARY_END = '"""\n\n'


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


@pytest.fixture
async def jobs(world: World, dsn: str) -> JobsWorld:
    made = JobsWorld(world, dsn)
    await made.open()
    return made


@pytest.fixture
async def on_rabbit(rabbit_world: World, dsn: str) -> JobsWorld:
    """For what does not depend on the broker."""
    made = JobsWorld(rabbit_world, dsn)
    await made.open()
    return made


async def test_a_nested_graph_runs_over_the_broker(jobs: JobsWorld) -> None:
    graph = chain(add.s(1, 2), group(add.s(10), add.s(20), chain(add.s(1), add.s(1))), then=total.s())
    submitted = await jobs.submit(graph)
    async with jobs.running():
        await jobs.ended()
    result = await jobs.result(submitted.job_id)
    assert (result.outcome, result.value) == (Outcome.DONE, 13 + 23 + 5)
    assert (await jobs.result(submitted.outputs[0])).value == 41


async def test_the_example_of_the_document_does_what_it_says(rabbit_world: World, dsn: str) -> None:
    document, example = (REPOSITORY / "docs/jobs.md").read_text(), (REPOSITORY / "examples/baskets.py").read_text()
    assert f"```python\n{example.split(SUMMARY_END, 1)[1]}```" in document
    jobs = JobsWorld(rabbit_world, dsn, baskets.price_of, baskets.discounted)
    await jobs.open()
    submitted = await jobs.submit(baskets.basket(["TEA", "POT"]), kind="basket", unique="basket 1")
    await jobs.run_to_the_end(await jobs.pipeline())
    assert (await jobs.result(submitted.job_id)).value == 540


async def test_a_job_exists_exactly_if_its_transaction_commits(on_rabbit: JobsWorld) -> None:
    with suppress(KeyError):
        async with on_rabbit.units.begin() as uow:
            await uow.submit(add.s(1, 2))
            await uow.flush()
            raise KeyError
    assert await on_rabbit.rows("select 1 from job union all select 1 from job_step") == []
    assert await on_rabbit.take_outbox() == []


WRITTEN = """
    select to_jsonb(j) - '{id, submitted_at, due_at, correlation}'::text[] as job,
           to_jsonb(s) - '{id, job_id, due_at, fair_at}'::text[] as step,
           j.correlation = j.id::text as is_correlated,
           round(extract(epoch from j.due_at - j.submitted_at)) as job_due_s,
           round(extract(epoch from s.due_at - j.submitted_at)) as step_due_s,
           s.fair_at is null as is_fair
      from job j join job_step s on s.job_id = j.id
"""


async def test_a_job_of_one_step_is_written_as_one_of_several(on_rabbit: JobsWorld) -> None:
    written = []
    for count in (1, 2):
        async with on_rabbit.units.begin() as uow:
            for _ in range(count):
                await uow.submit(add.s(1, 2).after(7), kind="sum", priority=3, delay_s=20, tenant="t")
        written.append([tuple(row) for row in await on_rabbit.rows(WRITTEN)])
    assert written[1] == written[0] * 3
    [(_, step, *rest)] = written[0]
    assert (step["args"], step["state"], rest[1:3]) == ({"a": 1, "b": 2}, "scheduled", [27, 27])


async def test_a_batch_of_steps_is_one_transaction(on_rabbit: JobsWorld) -> None:
    submitted = await on_rabbit.submit(map_over(add.s(1), range(100), then=total.s()))
    assert await on_rabbit.run_to_the_end(await on_rabbit.pipeline()) == 2
    assert (await on_rabbit.result(submitted.job_id)).value == sum(range(100)) + 100


async def test_solo_jobs_and_steps_of_graphs_end_in_one_batch(on_rabbit: JobsWorld) -> None:
    solos = [await on_rabbit.submit(tag.si(n, name=f"solo {n}", failures=n % 2)) for n in range(4)]
    refused = await on_rabbit.submit(reject.s())
    graph = await on_rabbit.submit(group(add.s(1, 2), reject.s(), add.s(3, 4)))
    await on_rabbit.run_to_the_end(await on_rabbit.pipeline())
    results = [(await on_rabbit.result(one.job_id)).value for one in solos]
    assert results == [[f"solo {n}", n] for n in range(4)]
    assert [await on_rabbit.state(one.job_id) for one in (refused, graph)] == ["failed", "failed"]
    assert await on_rabbit.states(graph.job_id) == [
        ("add", "succeeded"),
        ("reject", "failed"),
        ("add", "succeeded"),
    ]
    ended = await on_rabbit.rows(
        "select open_steps, finished_at, expires_at - finished_at as kept from job where state = 'succeeded'"
    )
    assert {(row.open_steps, row.kept.total_seconds()) for row in ended} == {(0, RESULT_TTL_S)}


async def test_a_group_has_the_results_of_its_members_in_their_order(on_rabbit: JobsWorld) -> None:
    submitted = await on_rabbit.submit(group(add.s(1, 2), chain(add.s(3, 4), add.s(5)), group()))
    await on_rabbit.run_to_the_end(await on_rabbit.pipeline())
    result = await on_rabbit.result(submitted.job_id)
    assert result.value == [3, 12, []]
    assert [(member.id, member.value) for member in result.members or ()] == list(
        zip(submitted.outputs, [3, 12, []], strict=True)
    )


async def test_an_attempt_that_fails_is_tried_again_and_leaves_no_effect(on_rabbit: JobsWorld) -> None:
    submitted = await on_rabbit.submit(group(tag.s(1, name="a", failures=2), tag.s(2, name="b")))
    await on_rabbit.run_to_the_end(await on_rabbit.pipeline())
    assert (await on_rabbit.result(submitted.job_id)).value == [["a", 1], ["b", 2]]
    effects = await on_rabbit.rows("select key, number from effect order by key")
    assert [(row.key, row.number) for row in effects] == [("a", 3), ("b", 1)]
    attempts = await on_rabbit.rows(
        "select attempt, outcome, error ->> 'type' as type from job_attempt order by 1"
    )
    assert [tuple(row) for row in attempts] == [(1, "failed", "ValueError"), (2, "failed", "ValueError")]


async def test_what_follows_a_failed_step_is_skipped_and_the_job_has_failed(on_rabbit: JobsWorld) -> None:
    submitted = await on_rabbit.submit(chain(group(reject.s(), add.s(1, 2)), total.s(), total.s()))
    await on_rabbit.run_to_the_end(await on_rabbit.pipeline())
    states = [state for _, state in await on_rabbit.states(submitted.job_id)]
    assert states == ["failed", "succeeded", "skipped", "skipped"]
    result = await on_rabbit.result(submitted.job_id)
    assert (result.outcome, result.error["type"]) == (Outcome.FAILED, "Reject")
    assert [row.attempt for row in await on_rabbit.rows("select attempt from job_attempt")] == [1]


@pytest.mark.parametrize(("on_failure", "seen"), [("pass", "Reject"), ("ignore", None)])
async def test_a_failure_may_be_passed_on_or_ignored(
    on_rabbit: JobsWorld, on_failure: str, seen: str | None
) -> None:
    graph = chord(reject.s(), add.s(1, 2), then=tag.s(name="seen"), on_failure=on_failure)  # type: ignore[arg-type]
    submitted = await on_rabbit.submit(graph)
    await on_rabbit.run_to_the_end(await on_rabbit.pipeline())
    assert await on_rabbit.state(submitted.job_id) == "succeeded"
    name, (first, second) = (await on_rabbit.result(submitted.job_id)).value
    assert (name, second) == ("seen", 3)
    assert (first["error"]["type"] if first else None) == seen


async def test_a_delay_is_a_row_that_becomes_due(on_rabbit: JobsWorld) -> None:
    submitted = await on_rabbit.submit(chain(add.s(1, 2).after(0.05), add.s(3).after(0.05)), delay_s=0.05)
    assert await on_rabbit.state(submitted.job_id) == "scheduled"
    assert await on_rabbit.states(submitted.job_id) == [("add", "scheduled"), ("add", "waiting")]
    assert await on_rabbit.take_outbox() == []
    await on_rabbit.run_to_the_end(await on_rabbit.pipeline())
    assert (await on_rabbit.result(submitted.job_id)).value == 6


async def test_an_announcement_that_comes_again_or_late_has_no_effect(on_rabbit: JobsWorld) -> None:
    await on_rabbit.submit(tag.s(1, name="a", failures=1))
    [first] = await on_rabbit.take_outbox()
    pipeline = await on_rabbit.pipeline()
    again = Envelope(source="/elsewhere", type=first.type, data=first.data)
    await pipeline(on_rabbit.world.deliver([first, first, again]))
    await on_rabbit.run_to_the_end(pipeline)
    await pipeline(on_rabbit.world.deliver([first, Envelope(source="/late", type=first.type, data=first.data)]))
    assert len(await on_rabbit.rows("select 1 from effect")) == 1
    assert await on_rabbit.world.dead_letters() == []


async def test_what_an_announcement_says_whole_is_not_read_before_it_runs(
    on_rabbit: JobsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    async def take_steps(connection: Any, ids: Collection[UUID]) -> Any:
        read.append(len(ids))
        return await looked(connection, ids)

    looked = store.take_steps
    monkeypatch.setattr(store, "take_steps", take_steps)
    sums = [await on_rabbit.submit(graph) for graph in (add.s(1, 2), map_over(add.s(1), range(5), then=total.s()))]
    await on_rabbit.submit(tag.s(1))  # it may tell something
    await on_rabbit.run_to_the_end(await on_rabbit.pipeline())
    assert read == [1, 1]  # `tag`, and `total` in the batch behind it
    assert [(await on_rabbit.result(one.job_id)).value for one in sums] == [3, sum(range(5)) + 5]


async def test_a_step_that_is_not_ready_any_more_is_left_out_of_its_batch(on_rabbit: JobsWorld) -> None:
    kept = [await on_rabbit.submit(graph) for graph in (add.s(1, 2), chain(add.s(2, 2), add.s(1)))]
    gone = [await on_rabbit.submit(graph) for graph in (add.s(0, 0), chain(add.s(0, 0), add.s(0)), reject.s(1))]
    for one in gone:
        async with on_rabbit.units.begin() as uow:
            await cancel(uow, one.job_id)
    events, pipeline = await on_rabbit.take_outbox(), await on_rabbit.pipeline()
    again = [Envelope(source="/elsewhere", type=event.type, data=event.data) for event in events]
    await pipeline(on_rabbit.world.deliver(events))
    await pipeline(on_rabbit.world.deliver(again))
    await on_rabbit.run_to_the_end(pipeline)
    assert [(await on_rabbit.result(one.job_id)).value for one in kept] == [3, 5]
    assert {await on_rabbit.state(one.job_id) for one in gone} == {"cancelled"}
    assert await on_rabbit.rows("select 1 from job_attempt") == []
    assert await on_rabbit.world.dead_letters() == []


@pytest.mark.parametrize("graph", [add.s(1, 2), chain(add.s(1, 2), add.s(1))], ids=["solo", "chain"])
async def test_a_step_that_does_not_exist_is_a_dead_letter_and_those_beside_it_run(
    on_rabbit: JobsWorld, graph: Signature
) -> None:
    first, missing, last = [await on_rabbit.submit(graph) for _ in range(3)]
    await on_rabbit.rows("delete from job_step where job_id = :id returning id", id=missing.job_id)
    await on_rabbit.rows("delete from job where id = :id returning id", id=missing.job_id)
    await on_rabbit.run_to_the_end(await on_rabbit.pipeline())
    assert {await on_rabbit.state(one.job_id) for one in (first, last)} == {"succeeded"}
    [letter] = await on_rabbit.world.await_dead_letters(1)
    assert str(missing.job_id).encode() in letter.body


async def test_a_cancelled_job_ends_at_once_and_what_was_announced_has_no_effect(on_rabbit: JobsWorld) -> None:
    submitted = await on_rabbit.submit(chain(group(tag.s(1), tag.s(2).after(60)), then=tag.s()))
    async with on_rabbit.units.begin() as uow:
        assert await cancel(uow, submitted.job_id) == "cancelled"
    assert {state for _, state in await on_rabbit.states(submitted.job_id)} == {"cancelled"}
    await on_rabbit.run_to_the_end(await on_rabbit.pipeline())
    assert await on_rabbit.rows("select 1 from effect") == []
    assert (await on_rabbit.result(submitted.job_id)).outcome is Outcome.CANCELLED
    async with on_rabbit.units.begin() as uow:
        assert await cancel(uow, submitted.job_id) == "cancelled"


async def test_a_failed_job_goes_on_from_where_it_failed(on_rabbit: JobsWorld) -> None:
    graph = chain(tag.s(0, name="once"), tag.s(name="bad", failures=3), tag.s(name="last"))
    submitted = await on_rabbit.submit(graph)
    pipeline = await on_rabbit.pipeline()
    await on_rabbit.run_to_the_end(pipeline)
    assert await on_rabbit.state(submitted.job_id) == "failed"
    async with on_rabbit.units.begin() as uow:
        await retry(uow, submitted.job_id, on_rabbit.jobs.batch(uow))
    await on_rabbit.run_to_the_end(pipeline)
    assert (await on_rabbit.result(submitted.job_id)).value == ["last", ["bad", ["once", 0]]]
    assert sorted(row.key for row in await on_rabbit.rows("select key from effect")) == ["bad", "last", "once"]
    with pytest.raises(JobStateError):
        async with on_rabbit.units.begin() as uow:
            await cancel(uow, submitted.job_id)
    with pytest.raises(JobNotFoundError):
        async with on_rabbit.units.begin() as uow:
            await retry(uow, uuid4(), on_rabbit.jobs.batch(uow))


async def test_while_a_key_is_held_the_job_that_holds_it_is_returned(on_rabbit: JobsWorld) -> None:
    first = await on_rabbit.submit(add.s(1, 2), unique="k")
    assert (await on_rabbit.submit(add.s(1, 2), unique="k")).job_id == first.job_id
    assert (await on_rabbit.submit(add.s(1, 2), unique="other")).is_new
    await on_rabbit.run_to_the_end(await on_rabbit.pipeline())
    later = await on_rabbit.submit(add.s(1, 2), unique="k", unique_s=60)
    assert later.is_new
    await on_rabbit.run_to_the_end(await on_rabbit.pipeline())
    assert not (await on_rabbit.submit(add.s(1, 2), unique="k", unique_s=60)).is_new


async def test_a_result_is_gone_when_its_time_is_over(on_rabbit: JobsWorld) -> None:
    submitted = await on_rabbit.submit(group(add.s(1, 2)))
    await on_rabbit.run_to_the_end(await on_rabbit.pipeline())
    await on_rabbit.rows("update job set expires_at = now() - interval '1 second' returning id")
    assert (await on_rabbit.result(submitted.job_id)).outcome is Outcome.EXPIRED
    with pytest.raises(JobNotFoundError):
        await on_rabbit.result(uuid4())
