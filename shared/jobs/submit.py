"""Writing jobs down: what was submitted in a unit of work becomes rows, with one statement for all of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause

from shared.jobs import limits
from shared.jobs.flatten import Flat, FlatStep
from shared.jobs.inserting import inserting
from shared.publishing import Options, UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job to be written down; `ids` are its steps', in the order of the flat one."""

    job_id: UUID
    flat: Flat
    ids: Sequence[UUID]
    options: Options
    correlation: str
    traceparent: str | None
    result_ttl_s: int

    @property
    def outputs(self) -> tuple[UUID, ...]:
        """The steps whose results are the job's, in their order."""
        ends = [(step.output, self.ids[i]) for i, step in enumerate(self.flat.steps) if step.output is not None]
        return tuple(step_id for _, step_id in sorted(ends))

    def first_steps(self) -> Iterator[tuple[UUID, FlatStep]]:
        """The steps that are ready at once, with their ids: they wait for no parent and for no time."""
        for index, delay_s in self._first_delays():
            if delay_s == 0:
                yield self.ids[index], self.flat.steps[index]

    def turns(self) -> Iterator[tuple[str, str]]:
        """Queue and tenant of the leased steps, where they are a tenant's."""
        if self.options.tenant is not None:
            for step in self.flat.steps:
                if step.job.leased:
                    yield step.job.queue, self.options.tenant

    @property
    def due_in_s(self) -> float:
        """Seconds until the first of its steps is ready."""
        return min(delay_s for _, delay_s in self._first_delays())

    def _first_delays(self) -> Iterator[tuple[int, float]]:
        children = {edge.child for edge in self.flat.edges}
        for index, step in enumerate(self.flat.steps):
            if index not in children:
                yield index, step.delay_s + self.options.delay_s


async def written(
    uow: UnitOfWork, submissions: Sequence[Submission], wake: Collection[str]
) -> tuple[TextClause, dict[str, Any]]:
    """The statement that inserts the jobs, steps and edges, and its parameters; workers are told `wake`."""
    turns: limits.Turns = {}
    if wanted := [turn for one in submissions for turn in one.turns()]:
        turns = await limits.turns(uow.connection, wanted)
    jobs = [_job_row(one) for one in submissions]
    steps = [row for one in submissions for row in _step_rows(one, turns)]
    edges = [row for one in submissions for row in _edge_rows(one)]
    return inserting(jobs, steps, edges, wake)


def _job_row(one: Submission) -> dict[str, Any]:
    firing = one.options.firing
    return {
        "id": one.job_id,
        "kind": one.options.kind or one.flat.steps[0].job.name,
        "delay_s": one.due_in_s,
        "schedule_id": firing and firing.schedule_id,
        "due_at": firing and firing.due_at,
        "tenant": one.options.tenant,
        "priority": one.options.priority,
        "form": one.flat.form,
        "steps": len(one.ids),
        "correlation": one.correlation,
        "traceparent": one.traceparent,
        "result_ttl_s": one.result_ttl_s,
    }


def _step_rows(one: Submission, turns: limits.Turns) -> Iterator[dict[str, Any]]:
    tenant = one.options.tenant
    parents = Counter(edge.child for edge in one.flat.edges)
    for number, step in enumerate(one.flat.steps):
        waiting_on = parents[number]
        delay_s = step.delay_s + (0 if waiting_on else one.options.delay_s)
        yield {
            "id": one.ids[number],
            "job_id": one.job_id,
            "number": number,
            "handler": step.job.name,
            "queue": step.job.queue,
            "leased": step.job.leased,
            "args": json.dumps(step.args),
            "takes": step.takes,
            "output": step.output,
            "state": "waiting" if waiting_on else "scheduled" if delay_s > 0 else "ready",
            "waiting_on": waiting_on,
            "delay_s": delay_s,
            "priority": one.options.priority,
            "concurrency_key": step.job.concurrency_key(step.args),
            "fair_at": next(turns[step.job.queue, tenant]) if tenant is not None and step.job.leased else None,
        }


def _edge_rows(one: Submission) -> Iterator[dict[str, Any]]:
    for edge in one.flat.edges:
        yield {
            "parent": one.ids[edge.parent],
            "child": one.ids[edge.child],
            "position": edge.position,
            "on_failure": edge.on_failure,
        }
