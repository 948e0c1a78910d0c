"""Reads from a database what is there of the jobs that were submitted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import orjson

from faults.beside import plain_uuid
from faults.jobs.checker import Found, JobFound, StepFound, by_step
from faults.jobs.played import SCHEDULE, expected

Query = Callable[..., Awaitable[Sequence[Any]]]
"""Rows of asyncpg's for a statement and its parameters."""

# What was submitted after the moment is of the next phase, but for what was due before it: a schedule may be late.
_JOBS = """
select j.id, j.state, j.due_at, j.schedule_id is not null as is_firing,
       (select (s.args ->> 'number')::bigint from job_step s where s.job_id = j.id and s.handler = 'played-begin'),
       (select s.result::text from job_step s where s.job_id = j.id and s.output = 0)
  from job j where case when j.schedule_id is null then j.submitted_at else j.due_at end <= $1
"""
_STEPS = """
select s.id, s.job_id, s.handler, s.state, s.result::text
  from job_step s join job j on j.id = s.job_id
 where case when j.schedule_id is null then j.submitted_at else j.due_at end <= $1
"""
_EFFECTS = "select step_id, value from played_effect order by position"
_NEXT_DUE = "select next_due from job_schedule where name = $1"


async def read(query: Query, moment: datetime, expected_of: Callable[[int], int | None] = expected) -> Found:
    """What was submitted, and what was due, until `moment`; `expected_of` says a graph's result by its number."""
    jobs = [
        JobFound(
            id=plain_uuid(id_),
            state=state,
            result=result,
            expected=_json(due_at.isoformat() if is_firing else expected_of(number)),
            due_at=due_at if is_firing else None,
        )
        for id_, state, due_at, is_firing, number, result in await query(_JOBS, moment)
    ]
    steps = [
        StepFound(plain_uuid(id_), plain_uuid(job_id), handler, state, result)
        for id_, job_id, handler, state, result in await query(_STEPS, moment)
    ]
    effects = [(plain_uuid(step_id), value) for step_id, value in await query(_EFFECTS)]
    next_due = [min(row[0], moment) for row in await query(_NEXT_DUE, SCHEDULE)]
    return Found(jobs, steps, by_step(effects), next_due[0] if next_due else None)


def _json(value: str | int | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
