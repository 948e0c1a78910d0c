"""Random graphs over real brokers, with failures, duplicates, reordered deliveries, kills: each ends as it should.

What should come of a graph is worked out in this process from its steps and edges, one after the other.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from deploy.native import Runtime
from shared import failpoints
from shared.envelope import Envelope
from shared.jobs.flatten import Flat, flatten, gather
from shared.jobs.reading import Outcome
from shared.jobs.signatures import Call, Signature, chain, chord, group, map_over
from tests.forked import Forked, fork
from tests.integration.databases import migrated_database
from tests.integration.jobs_world import JobsWorld, leased_tag, reject, tag
from tests.integration.world import World

pytestmark = pytest.mark.timeout(400)

GRAPHS = 30
KILLED_AT = {
    "rabbit": (
        failpoints.AFTER_COMMIT,
        failpoints.AFTER_PUBLISH,
        failpoints.WORKER_LEASED,
        failpoints.WORKER_BEFORE_COMMIT,
    ),
    "kafka": (failpoints.AFTER_COMMIT,),
}
"""Where the process that runs all dies, one after the other. Each death costs Kafka its session of 6 s, and a
worker does not know the broker."""
QUICKLY = {
    "heartbeat_interval_s": 0.5,
    "heartbeat_ttl_s": 2.0,
    "worker_beat_interval_s": 0.5,
    "worker_beat_limit_s": 4.0,
    "worker_poll_interval_s": 1.0,
}
"""What a killed process held is found within seconds; a machine with two busy cores says in time that it lives."""
RETRIES = 2
REPEATS = 8
"""For each process that runs the jobs."""
DRAWS = 0x7A9D3


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


# -- graphs


def calls() -> st.SearchStrategy[Call]:
    names, failures = st.text("abcdef", min_size=1, max_size=2), st.sampled_from([0, 0, 0, 0, 1, 2, 3])
    tags = st.builds(lambda name, count: tag.s(name=name, failures=count), names, failures)
    leased = st.builds(
        lambda name, count: leased_tag.s(name=name, failures=count), names, st.sampled_from([0, 0, 1])
    )
    alone = st.builds(lambda name, count: tag.si(None, name=name, failures=count), names, failures)
    late = st.builds(lambda name: tag.s(name=name).after(0.01), names)
    return st.one_of(tags, tags, leased, alone, late, st.just(reject.s()))


def graphs() -> st.SearchStrategy[Signature]:
    def nested(parts: st.SearchStrategy[Signature]) -> st.SearchStrategy[Signature]:
        some, handling = (
            st.lists(parts, min_size=1, max_size=4),
            st.sampled_from(["fail", "fail", "pass", "ignore"]),
        )
        return st.one_of(
            st.builds(lambda members: chain(*members), some),
            st.builds(lambda members: group(*members), st.lists(parts, max_size=4)),
            st.builds(lambda members, then, on: chord(*members, then=then, on_failure=on), some, parts, handling),
            st.builds(lambda items, then: map_over(tag, items, then=then), st.lists(st.integers(0, 9)), parts),
        )

    started = st.recursive(calls(), nested, max_leaves=14)
    return st.builds(lambda graph: chain(tag.si("start"), graph), started)


SOLOS: list[Signature] = [
    one for n in range(6) for one in (tag.si(n, name="solo", failures=n % 3), leased_tag.si(n, name="solo"))
]
"""Jobs of one step, which end in another way."""


def some_graphs(count: int) -> list[Signature]:
    """So many graphs, the same ones every time."""
    drawn: list[Signature] = []

    @seed(DRAWS)
    @settings(max_examples=count, phases=[Phase.generate], database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(graphs())
    def draw(graph: Signature) -> None:
        drawn.append(graph)

    draw()
    return drawn[:count]


# -- what should come of one


@dataclass(frozen=True)
class Lost:
    """The end of a step that has no result."""

    state: str
    error: dict[str, str] | None = None


def evaluated(flat: Flat) -> list[Any]:
    """What becomes of each step: its result, or `Lost`."""
    ends: list[Any] = []
    for index, step in enumerate(flat.steps):
        edges = sorted((edge for edge in flat.edges if edge.child == index), key=lambda edge: edge.position)
        parents = [(ends[edge.parent], edge.on_failure) for edge in edges]
        if any(isinstance(end, Lost) and on_failure == "fail" for end, on_failure in parents):
            ends.append(Lost("skipped"))
            continue
        given_ = [seen(end, on_failure) for end, on_failure in parents]
        inputs = {"nothing": [], "value": given_, "list": [given_]}[step.takes]
        ends.append(called(step.job.name, step.job.arguments.to_values(step.args, *inputs)))
    return ends


def seen(end: Any, on_failure: str) -> Any:
    """What a step gets of a parent's end."""
    if not isinstance(end, Lost):
        return end
    return {"error": end.error} if on_failure == "pass" else None


def called(handler: str, values: dict[str, Any]) -> Any:
    """What the handlers of the tests do."""
    if handler == gather.name:
        return values["items"]
    if handler == reject.name:
        return Lost("failed", {"type": "Reject", "message": "not this one"})
    if handler == tag.name and values.get("failures", 0) > RETRIES:
        return Lost("failed", {"type": "ValueError", "message": f"{values['name']} fails"})
    return [values.get("name", ""), values["value"]]


def without_stacks(value: Any) -> Any:
    """The same without the stacks of errors, which say where in this repository they are from."""
    if isinstance(value, dict):
        return {key: without_stacks(one) for key, one in value.items() if key != "stack"}
    return [without_stacks(one) for one in value] if isinstance(value, list) else value


# -- and what does


async def assert_as_evaluated(jobs: JobsWorld, job_id: UUID, flat: Flat) -> None:
    """States, results, effects and the job's own state are what they should be."""
    ends = evaluated(flat)
    rows = await jobs.rows("select * from job_step where job_id = :id order by number", id=job_id)
    states = [end.state if isinstance(end, Lost) else "succeeded" for end in ends]
    assert [row.state for row in rows] == states
    results = [without_stacks(row.result) for row in rows]
    assert results == [None if isinstance(end, Lost) else end for end in ends]
    outputs = [ends[i] for i, step in enumerate(flat.steps) if step.output is not None]
    result = await jobs.result(job_id)
    assert result.outcome is (Outcome.FAILED if any(isinstance(one, Lost) for one in outputs) else Outcome.DONE)
    if result.outcome is Outcome.DONE:
        assert without_stacks(result.value) == (outputs if flat.form == "list" else outputs[0])
    effects = await jobs.rows(
        "select event_id from effect where event_id = any(:ids)", ids=[str(r.id) for r in rows]
    )
    expected = {
        str(row.id): 1
        for row, state, step in zip(rows, states, flat.steps, strict=True)
        if state == "succeeded" and step.job in {tag, leased_tag}
    }
    assert Counter(row.event_id for row in effects) == expected


async def repeat_announcements(jobs: JobsWorld, draws: random.Random) -> None:
    """Publish what was announced again, in any order: as the same events, and as others that say the same.

    So many times and no more: a busy machine could not keep up with what never ends.
    """
    publisher = await jobs.world.publisher()
    await publisher.declare((jobs.world.name,), ((await jobs.pipeline()).subscription,))
    seen_: dict[str, Envelope] = {}
    for _ in range(REPEATS):
        for row in await jobs.rows("select body from outbox"):
            envelope = Envelope.decode(row.body)
            seen_[envelope.id] = envelope
        steps = await jobs.rows("select id, job_id, attempt, handler from job_step order by random() limit 20")
        again = [
            Envelope(
                source="/tests",
                type=jobs.jobs.ready.event_type,
                dataschema=jobs.jobs.ready.schema_uri(),
                partitionkey=str(draws.random()),
                data={"job_id": str(r.job_id), "step_id": str(r.id), "attempt": r.attempt, "handler": r.handler},
            )
            for r in steps
        ]
        known = draws.sample(sorted(seen_), min(20, len(seen_)))
        envelopes = [*again, *(seen_[event_id] for event_id in known)]
        draws.shuffle(envelopes)
        messages = [jobs.message(envelope) for envelope in envelopes]
        assert await publisher.publish(messages) == []
        await asyncio.sleep(0.05)


async def started(jobs: JobsWorld, dsn: str, dies_at: str = "") -> Forked:
    """A process that runs the jobs, and kills itself at a fail point if it is told one."""
    values = jobs.world.setting_values(postgres_dsn=dsn, failpoints=dies_at and f"{dies_at}=kill@2", **QUICKLY)
    process = await fork("tests.integration.jobs_process", jobs.world.name, orjson.dumps(values).decode())
    jobs.world.stack.callback(process.kill)
    return process


async def test_every_graph_ends_as_a_plain_evaluation_says_whatever_is_killed(world: World, dsn: str) -> None:
    jobs = JobsWorld(world, dsn, leased_tag)
    await jobs.open()
    draws = random.Random(DRAWS)
    graphs_ = [*some_graphs(GRAPHS), *SOLOS]
    places = KILLED_AT[world.broker_name]
    submitted: list[UUID] = []
    for number, place in enumerate(places):  # a share of the graphs for each, so that there is work left
        submitted += [(await jobs.submit(graph)).job_id for graph in graphs_[number :: len(places)]]
        dying = await started(jobs, dsn, place)
        code, _ = await asyncio.gather(dying.wait(120), repeat_announcements(jobs, draws))
        assert code == -signal.SIGKILL, place
    await started(jobs, dsn)
    await repeat_announcements(jobs, draws)
    await jobs.ended(len(submitted))
    for number in range(len(places)):
        for graph in graphs_[number :: len(places)]:
            await assert_as_evaluated(jobs, submitted.pop(0), flatten(graph))
    assert await jobs.rows("select 1 from job_step where state not in ('succeeded', 'failed', 'skipped')") == []
