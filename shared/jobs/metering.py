"""How the jobs of a service stand, as gauges ask: what waits in its queues, what runs, and which workers live."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from shared.database import Database
from shared.telemetry import Ask, Sample

_COUNT_MAX: Final = 100_000
"""Of each state; beyond it, so many are said to be."""

# Each part has its own partial index, and is bounded: a look costs no more the longer the history is.
_STEPS = text(
    """
    with found as (
      (select queue, 'ready' as state, due_at as since from job_step
        where state = 'ready' and leased limit :count_max)
      union all
      (select queue, 'ready', due_at from job_step where state = 'ready' and not leased limit :count_max)
      union all
      (select queue, 'running', started_at from job_step where state = 'running' limit :count_max)
      union all
      (select queue, 'scheduled', null from job_step where state = 'scheduled' limit :count_max))
    select queue, state, count(*) as steps,
           greatest(0, coalesce(extract(epoch from now() - min(since)), 0))::float8 as age_s
      from found group by queue, state
    """
)
_WORKERS = text(
    """
    select case when alive_until <= clock_timestamp() then 'lost' when draining then 'draining' else 'alive' end
             as state,
           count(*) as workers
      from job_worker group by 1
    """
)


def jobs_of(database: Database) -> dict[str, Ask]:
    """The gauges' question to a service's jobs."""

    async def ask() -> list[Sample]:
        async with database.transaction() as connection:
            steps = (await connection.execute(_STEPS, {"count_max": _COUNT_MAX})).all()
            workers = {row.state: row.workers for row in await connection.execute(_WORKERS)}
        samples = [
            Sample("tandem.job.workers", workers.get(state, 0), {"tandem.state": state})
            for state in ("alive", "draining", "lost")
        ]
        for row in steps:
            queue = {"tandem.job.queue": row.queue}
            samples.append(Sample("tandem.job.steps", row.steps, {**queue, "tandem.state": row.state}))
            if row.state == "ready":
                samples.append(Sample("tandem.job.oldest.age", row.age_s, queue))
        return samples

    return {"jobs": ask}
