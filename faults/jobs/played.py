"""The jobs that run while the system is broken: each step leaves a row, each graph's result is known beforehand.

A graph adds numbers up, in steps of every kind: inline, leased in a worker's loop, leased in a child. Some
attempts fail after they have told their effect, which must then not be there; in some graphs a step is refused
for good.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Uuid, column, insert, table

from shared.jobs import Job, JobContext, Jobs, Reject, Retry, Signature, StepReady, chain, group, job
from shared.jobs.schedules import Every, Schedule, Schedules

CREATE_EFFECTS = """
create table if not exists played_effect (
  position bigint generated always as identity, step_id uuid not null, attempt integer not null,
  value text not null)
"""
"""No constraint keeps a second effect of a step out: the engine alone is to."""
_INSERT_EFFECT = insert(table("played_effect", column("step_id", Uuid), column("attempt"), column("value")))

_PATIENT = Retry(20, initial_s=0.2, max_s=1.0)
"""Whatever is killed, an attempt is left."""
_COMPUTED_S = 0.2
"""How long a child computes: long enough to be killed in the middle of it."""
FIRES_EVERY = timedelta(seconds=2)
SCHEDULE = "played"


class PlayedStepReady(StepReady):
    """On the channel of the jobs service, in whose place this one runs."""

    channel = "job"
    event_type = "job.step_ready"


def _note(ctx: JobContext, value: Any, failures: int = 0) -> None:
    ctx.tell(_INSERT_EFFECT, {"step_id": ctx.step_id, "attempt": ctx.attempt, "value": str(value)})
    if ctx.attempt <= failures:
        raise ValueError("this attempt fails")


@job(name="played-begin", retries=_PATIENT)
async def begin(number: int, ctx: JobContext) -> int:
    """The number."""
    _note(ctx, number)
    return number


@job(name="played-inline", retries=_PATIENT)
async def inline_plus(value: int, more: int, ctx: JobContext, failures: int = 0) -> int:
    """The sum, in the consumer's transaction."""
    _note(ctx, value + more, failures)
    return value + more


@job(name="played-leased", leased=True, queue="io", retries=_PATIENT)
async def leased_plus(value: int, more: int, ctx: JobContext, failures: int = 0) -> int:
    """The sum, in a worker."""
    _note(ctx, value + more, failures)
    return value + more


@job(name="played-computed", process=True, queue="batch", retries=_PATIENT)
def computed_plus(value: int, more: int, ctx: JobContext) -> int:
    """The sum, in a child."""
    _note(ctx, value + more)
    time.sleep(_COMPUTED_S)
    return value + more


@job(name="played-refused", retries=_PATIENT)
async def refuse(value: int, ctx: JobContext) -> int:
    """Fails for good, after it has told an effect."""
    _note(ctx, value)
    raise Reject("no graph goes on behind this")


@job(name="played-total", retries=_PATIENT)
async def total(numbers: list[int], ctx: JobContext) -> int:
    """The join."""
    _note(ctx, sum(numbers))
    return sum(numbers)


@job(name="played-fired", retries=_PATIENT)
async def fired(ctx: JobContext) -> str:
    """The job of the schedule."""
    _note(ctx, ctx.due_at.isoformat())
    return ctx.due_at.isoformat()


def is_refused(number: int) -> bool:
    """Whether the graph of this number fails."""
    return number % 7 == 3


def graph(number: int) -> Signature:
    """A chain of a step, a group that holds a chain, and a join."""
    members: list[Signature] = [
        inline_plus.s(1),
        inline_plus.s(2, failures=1),
        leased_plus.s(3, failures=number % 2),
        chain(leased_plus.s(4), inline_plus.s(5)),
        computed_plus.s(6),
    ]
    if is_refused(number):
        members.append(refuse.s())
    return chain(begin.s(number), group(*members), then=total.s())


def expected(number: int) -> int | None:
    """The result of that graph, without running it; None where it fails."""
    return None if is_refused(number) else 5 * number + 1 + 2 + 3 + (4 + 5) + 6


def _fired(_due: datetime) -> Signature:
    return fired.s()


HANDLERS: tuple[Job[..., Any], ...] = (begin, inline_plus, leased_plus, computed_plus, refuse, total, fired)
JOBS = Jobs(PlayedStepReady, *HANDLERS)
SCHEDULES = Schedules(
    Schedule(SCHEDULE, Every(FIRES_EVERY.seconds), _fired, grace_s=3_600, made_up=1_000, overlap="allow")
)
