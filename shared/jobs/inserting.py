"""The statement that writes jobs down: all of a unit's at once, of arrays, or one of one step, of plain values.

One statement, since a submit is as many round trips as it has statements, and whoever submits waits for them. The
second form is for what is nearly always submitted: without the arrays the driver and PostgreSQL take a tenth less.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import TextClause, text

from shared.jobs.store import STEP_CHANNEL, columns

_JOB = {
    "id": "uuid",
    "kind": "text",
    "delay_s": "float8",
    "schedule_id": "uuid",
    "due_at": "timestamptz",
    "tenant": "text",
    "priority": "smallint",
    "form": "text",
    "steps": "integer",
    "correlation": "text",
    "traceparent": "text",
    "result_ttl_s": "integer",
}
_STEP = {
    "id": "uuid",
    "job_id": "uuid",
    "number": "integer",
    "handler": "text",
    "queue": "text",
    "leased": "boolean",
    "args": "text",
    "takes": "text",
    "output": "integer",
    "state": "text",
    "waiting_on": "integer",
    "delay_s": "float8",
    "priority": "smallint",
    "concurrency_key": "text",
    "fair_at": "timestamptz",
}
_EDGE = {"parent": "uuid", "child": "uuid", "position": "integer", "on_failure": "text"}


def _names(prefix: str, types: Mapping[str, str]) -> Mapping[str, str]:
    return {name: f"{prefix}_{name}" for name in types}


_OF_JOB, _OF_STEP, _OF_EDGE = _names("job", _JOB), _names("step", _STEP), _names("edge", _EDGE)
"""The parameter of each column."""


def _told(parameters: Mapping[str, str], types: Mapping[str, str], *, one: bool) -> str:
    if one:
        values = ", ".join(f"cast(:{parameters[name]} as {kind})" for name, kind in types.items())
        return f"(values ({values})) as told({', '.join(types)})"
    arrays = ", ".join(f"cast(:{parameters[name]} as {kind}[])" for name, kind in types.items())
    return f"unnest({arrays}) as told({', '.join(types)})"


def _inserting(*, one: bool) -> TextClause:
    edges = f"""
    edges as (
      insert into job_edge (parent, child, position, on_failure)
      select * from {_told(_OF_EDGE, _EDGE, one=False)}),"""  # noqa: S608  constants
    return text(
        f"""
    with woken as (
      select count(pg_notify('{STEP_CHANNEL}', ready))
        from {_told({"ready": "wake"}, {"ready": "text"}, one=one)} where ready is not null),{"" if one else edges}
    jobs as (
      insert into job (id, kind, state, tenant, priority, form, step_count, open_steps, failed_steps, lost_outputs,
                       correlation, traceparent, schedule_id, due_at, result_ttl_s, submitted_at)
      select id, kind, case when delay_s > 0 then 'scheduled' else 'waiting' end, tenant, priority, form,
             steps, steps, 0, 0,
             correlation, traceparent, schedule_id, coalesce(due_at, now() + make_interval(secs => delay_s)),
             result_ttl_s, now()
        from {_told(_OF_JOB, _JOB, one=one)})
    insert into job_step (id, job_id, number, handler, queue, leased, args, takes, output, state, waiting_on,
                          attempt, first_attempt, delay_s, due_at, priority, concurrency_key, fair_at)
    select id, job_id, number, handler, queue, leased, cast(args as json), takes, output, state, waiting_on,
           1, 1, delay_s, case when state <> 'waiting' then now() + make_interval(secs => delay_s) end, priority,
           concurrency_key, case when leased then coalesce(fair_at, 'epoch') end
      from {_told(_OF_STEP, _STEP, one=one)}, woken
    """  # noqa: S608  constants
    )


INSERT_JOBS = _inserting(one=False)
INSERT_JOB_OF_ONE_STEP = _inserting(one=True)

_Rows = Sequence[Mapping[str, Any]]


def inserting(jobs: _Rows, steps: _Rows, edges: _Rows, wake: Collection[str]) -> tuple[TextClause, dict[str, Any]]:
    """The statement and its parameters. The rows are those of whole jobs; `due_at` of jobs and steps is now and
    their `delay_s`. When it is committed, workers are told `wake`: see `store.ready`."""
    if len(jobs) == len(steps) == 1 and len(wake) <= 1:
        return INSERT_JOB_OF_ONE_STEP, {
            **{_OF_JOB[name]: value for name, value in jobs[0].items()},
            **{_OF_STEP[name]: value for name, value in steps[0].items()},
            "wake": next(iter(wake), None),
        }
    return INSERT_JOBS, {
        **_arrays(_OF_JOB, jobs),
        **_arrays(_OF_STEP, steps),
        **_arrays(_OF_EDGE, edges),
        "wake": sorted(wake),
    }


def _arrays(parameters: Mapping[str, str], rows: _Rows) -> dict[str, Sequence[Any]]:
    turned = columns(rows)
    return {parameter: turned.get(name, ()) for name, parameter in parameters.items()}
