"""Limits to leased steps: a queue's rate, how many with one key run at once, and turns between tenants.

Two tables hold what is shared by all workers. Of a queue: when its tokens are whole again (GCRA, ITU-T I.371), and
the turn that was served last. Of a tenant in a queue: the turn of the last step that it has submitted. A turn is a
time of no clock: start-time fair queueing (Goyal, Vin, Cheng 1996) counts one second for a step, begins a tenant
that comes at the turn that is being served, and takes the lowest turn first. So a tenant that submits one step
waits for one of each other tenant's, and not for the thousands that one of them has submitted before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.jobs.leases import ALIVE, TAKE_FREE

_TURN: Final = timedelta(seconds=1)
LOOKED_AT_MAX: Final = 500
"""So many steps that are ready are looked at for one whose key has room."""

# Whoever takes from a limited queue holds its row: what runs is counted by one worker at a time.
_OPEN = text("insert into job_queue (queue) values (:queue) on conflict (queue) do nothing")
_ENTER = text(
    """
    select cast(extract(epoch from greatest(whole_at, clock_timestamp()) - clock_timestamp()) as float8) as debt_s
      from job_queue where queue = :queue for no key update
    """
)
_SPEND = text(
    """
    update job_queue
       set whole_at = greatest(whole_at, clock_timestamp()) + make_interval(secs => cast(:spent_s as float8))
     where queue = :queue
    """
)
_READY: Final = """job_step s
        where s.state = 'ready' and s.leased and s.queue = :queue and s.handler = told.handler"""
"""Of one handler, which is `told`."""
_FIRST: Final = "order by s.concurrency_key limit 1"
"""By the index: where PostgreSQL expects to come upon one soon it would read the table."""

# Whether there is room for a step is asked first, of an index, between the keys that are full: a look in vain does
# not read all that waits for these.
_TAKE = text(
    f"""{ALIVE},
    limits as (
      select * from unnest(cast(:limited as text[]), cast(:counts as integer[])) as told(handler, count_max)),
    used as (
      select concurrency_key, count(*)::integer as count from job_step
       where state = 'running' and concurrency_key is not null group by concurrency_key),
    full_keys as (
      select distinct s.handler, s.concurrency_key as key
        from job_step s join limits using (handler) join used using (concurrency_key)
       where s.state = 'running' and used.count >= limits.count_max),
    gaps as (
      select handler, key as above, lead(key) over (partition by handler order by key) as below from full_keys
      union all
      select handler, null, min(key) from full_keys group by handler),
    room as (
      select from unnest(cast(:handlers as text[])) as told(handler)
       where case
         when not exists (select from full_keys where full_keys.handler = told.handler)
         then (select true from {_READY} {_FIRST})
         else (select true from {_READY} and s.concurrency_key is null {_FIRST})
              or exists (
                select from gaps
                 where gaps.handler = told.handler
                   and case
                     when above is null then (select true from {_READY} and s.concurrency_key < below {_FIRST})
                     when below is null then (select true from {_READY} and s.concurrency_key > above {_FIRST})
                     else (select true from {_READY} and s.concurrency_key > above
                                                     and s.concurrency_key < below {_FIRST})
                     end)
         end),
    looked_at as (
      select s.id, s.priority, s.fair_at, s.concurrency_key, limits.count_max, coalesce(used.count, 0) as count
        from job_step s left join limits using (handler) left join used using (concurrency_key)
       where s.state = 'ready' and s.leased and s.queue = :queue and s.handler = any(cast(:handlers as text[]))
         and (limits.count_max is null or coalesce(used.count, 0) < limits.count_max)
         and exists (select from room) and exists (select from me)
       order by s.priority desc, s.fair_at, s.id limit :looked_max),
    placed as (
      select *, row_number() over (partition by concurrency_key order by priority desc, fair_at, id) as place
        from looked_at),
    free as (
      select id from job_step
       where state = 'ready'
         and id = any(array(select id from placed where count_max is null or count + place <= count_max
                             order by priority desc, fair_at, id limit :free))
       order by id for no key update skip locked){TAKE_FREE}"""  # noqa: S608
)
_TURNS = text(
    """
    insert into job_tenant as t (queue, tenant, steps, last_turn)
    select told.queue, told.tenant, told.steps, coalesce(q.served, 'epoch') + make_interval(secs => told.steps)
      from unnest(cast(:queue as text[]), cast(:tenant as text[]), cast(:steps as integer[]))
             as told(queue, tenant, steps)
      left join job_queue q on q.queue = told.queue
     order by told.queue, told.tenant
    on conflict (queue, tenant) do update
       set steps = excluded.steps,
           last_turn = greatest(t.last_turn + make_interval(secs => excluded.steps), excluded.last_turn)
    returning queue, tenant, last_turn
    """
)


Turns = Mapping[tuple[str, str], Iterator[datetime]]
"""The turns of steps to be, by queue and tenant."""


async def turns(connection: AsyncConnection, steps: Iterable[tuple[str, str]]) -> Turns:
    """The turns of steps to be, each told by its queue and tenant; in the order of the steps of each."""
    counts = sorted(Counter(steps).items())
    if not counts:
        return {}
    told = {
        "queue": [queue for (queue, _), _ in counts],
        "tenant": [tenant for (_, tenant), _ in counts],
        "steps": [count for _, count in counts],
    }
    rows = (await connection.execute(_TURNS, told)).all()
    last = {(row.queue, row.tenant): row.last_turn for row in rows}
    return {key: iter([last[key] - _TURN * (count - n) for n in range(1, count + 1)]) for key, count in counts}


class QueueLimits:
    """What limits the taking from one queue, over all workers.

    `rate_per_s` is of steps begun, None for no limit; `counts` says by handler how many with one key run at once.
    As many as a second's worth, and at least one, may begin at once after a pause.
    """

    def __init__(self, queue: str, rate_per_s: float | None, counts: Mapping[str, int]) -> None:
        self.queue = queue
        self.rate_per_s = rate_per_s
        self.counts = counts

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self.rate_per_s is not None or bool(self.counts)

    async def enter(self, connection: AsyncConnection, free: int) -> tuple[int, float | None]:
        """Have the queue alone until the transaction ends; how many of `free` its rate allows, and in how many
        seconds it allows one more where that is none."""
        await connection.execute(_OPEN, {"queue": self.queue})
        debt_s: float = (await connection.execute(_ENTER, {"queue": self.queue})).scalar_one()
        if self.rate_per_s is None:
            return free, None
        tokens = max(1.0, self.rate_per_s) - debt_s * self.rate_per_s
        return (min(free, int(tokens)), None) if tokens >= 1 else (0, (1 - tokens) / self.rate_per_s)

    async def take(
        self, connection: AsyncConnection, worker: UUID, handlers: Collection[str], free: int
    ) -> Sequence[Row[Any]]:
        """As `leases.take`, within the limits; behind `enter`."""
        told = {
            "worker": worker,
            "queue": self.queue,
            "handlers": list(handlers),
            "limited": list(self.counts),
            "counts": list(self.counts.values()),
            "looked_max": max(free, LOOKED_AT_MAX),
            "free": free,
        }
        rows = (await connection.execute(_TAKE, told)).all()
        if rows and self.rate_per_s is not None:
            await connection.execute(_SPEND, {"queue": self.queue, "spent_s": len(rows) / self.rate_per_s})
        return rows
