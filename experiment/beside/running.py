"""Chains and groups of steps beside the orders: each step leaves a row, each result is known beforehand."""

from __future__ import annotations

from typing import Any

from experiment.beside.effects import INSERT_EFFECT
from experiment.beside.graphs import SUBSCRIBER, is_chain
from experiment.beside.submitting import Asked, graphs_app
from shared.jobs import JobContext, Jobs, Signature, StepReady, chain, group, job
from shared.process import Parts, Service


class PlayedStepReady(StepReady):
    """On the channel of the jobs service, in whose place this one runs."""

    channel = "job"
    event_type = "job.step_ready"


def _note(ctx: JobContext, value: int) -> int:
    ctx.tell(INSERT_EFFECT, {"subscriber": SUBSCRIBER, "key": str(ctx.step_id), "value": value})
    return value


@job(name="beside-begin")
async def begin(number: int, ctx: JobContext) -> int:
    """The number."""
    return _note(ctx, number)


@job(name="beside-next")
async def one_more(value: int, ctx: JobContext) -> int:
    """The number after it."""
    return _note(ctx, value + 1)


@job(name="beside-total")
async def total(numbers: list[int], ctx: JobContext) -> int:
    """The join."""
    return _note(ctx, sum(numbers))


def graph(asked: Asked) -> Signature:
    """A chain of so many steps; or a group of as many side by side, and a join."""
    if is_chain(asked.number):
        return chain(begin.s(asked.number), *(one_more.s() for _ in range(asked.steps - 1)))
    return chain(group(*(begin.s(asked.number + n) for n in range(asked.steps))), then=total.s())


def create_app(parts: Parts) -> Any:
    """The application, for a process with the role `api`."""
    return graphs_app(parts, graph)


JOBS = Jobs(PlayedStepReady, begin, one_more, total)
SERVICE = Service(
    name="jobs",
    publishes=(PlayedStepReady,),
    subscribers=(JOBS.subscriber(SUBSCRIBER),),
    background_tasks=(JOBS.keep_due,),
    jobs=JOBS,
    application="experiment.beside.running:create_app",
)
