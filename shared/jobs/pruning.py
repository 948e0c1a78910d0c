"""Pruning: jobs that ended long ago are deleted with all that belongs to them, a bounded portion in a transaction.

Not by dropped partitions (ADR 13): every look of a worker would go through all of them, and the id of a schedule's
job begins with its due time, which a backfill lets lie in any past. What is old is found by the primary key, in
the order of time.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

Prune = Callable[[AsyncConnection, float, int], Awaitable[int]]

# A portion is as many jobs as have `count_max` steps together, one more at most; a job goes as a whole.
_PRUNE = """
with old as (
  select id, step_count from job
   where id < :before and finished_at < now() - make_interval(secs => :older_than_s) {more}
   order by id limit :count_max for update skip locked),
gone as (
  select id from (select id, sum(step_count) over (order by id) - step_count as ahead from old) counted
   where ahead < :count_max),
steps as (delete from job_step where job_id in (select id from gone) returning id),
edges as (delete from job_edge where child in (select id from steps)),
attempts as (delete from job_attempt where step_id in (select id from steps)),
keys as (
  delete from job_unique where job_id in (select id from gone) and (expires_at is null or expires_at <= now())),
jobs as (delete from job where id in (select id from gone))
select count(*) from steps
"""
_PRUNE_ALL = text(_PRUNE.format(more=""))
_PRUNE_KIND = text(_PRUNE.format(more="and kind = :kind and state = 'succeeded'"))
_PRUNE_KEYS = text("delete from job_unique where expires_at <= now()")


async def prune(connection: AsyncConnection, older_than_s: float, count_max: int) -> int:
    """Delete jobs that ended so long ago, of about `count_max` steps together; return how many steps went."""
    await connection.execute(_PRUNE_KEYS)
    told = {"before": _before(older_than_s), "older_than_s": older_than_s, "count_max": count_max}
    count: int = (await connection.execute(_PRUNE_ALL, told)).scalar_one()
    return count


async def prune_kind(connection: AsyncConnection, older_than_s: float, count_max: int, *, kind: str) -> int:
    """The same of one kind's jobs, where they have succeeded."""
    told = {"before": _before(older_than_s), "older_than_s": older_than_s, "count_max": count_max, "kind": kind}
    count: int = (await connection.execute(_PRUNE_KIND, told)).scalar_one()
    return count


async def prune_keys(connection: AsyncConnection, _older_than_s: float, _count_max: int) -> int:
    """Delete the keys of uniqueness whose window is over."""
    await connection.execute(_PRUNE_KEYS)
    return 0


def prunes(history_s: float | None, kept_s: Mapping[str, float]) -> list[tuple[Prune, float]]:
    """What is pruned, and after how many seconds: kinds that are kept for a shorter time, and everything.

    `history_s` is None where the archive takes what has grown old.
    """
    if history_s is None:
        kinds = [(partial(prune_kind, kind=kind), seconds) for kind, seconds in kept_s.items()]
        return [*kinds, (prune_keys, 0.0)]
    shorter = [(partial(prune_kind, kind=kind), min(seconds, history_s)) for kind, seconds in kept_s.items()]
    return [*shorter, (prune, history_s)]


def _before(older_than_s: float) -> UUID:
    """No id of this moment or later is less. A job's id is older than its end."""
    return UUID(int=max(0, int((time.time() - older_than_s) * 1_000)) << 80)
