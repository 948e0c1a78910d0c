"""Records a batch for the hand-written loops, with the least code that a careful engineer would trust.

One Redis script claims, one transaction of two multi-row inserts (asyncpg) records, one script marks done. It
has the pipeline's tricks: one pass over the JSON into structs, the keys as one argument to Redis, one row of
two arrays back from the inbox. It has no isolation of a bad event, no retries, no dead letters, no traces:
whatever goes wrong ends the process.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Self

import asyncpg
import msgspec
import orjson
import uvloop
from redis.asyncio import Redis

from shared.garbage import rest_garbage_collector
from shared.settings import Settings

_CLAIM = """
local answers = {}
for i, key in ipairs(cjson.decode(ARGV[1])) do
  if redis.call('SET', key, ARGV[2], 'NX', 'PX', ARGV[3]) then
    answers[i] = 1
  elseif redis.call('GET', key) == 'd' then
    answers[i] = -1
  else
    answers[i] = 0
  end
end
return answers
"""

_DONE = """
for _, key in ipairs(cjson.decode(ARGV[1])) do
  redis.call('SET', key, 'd', 'PX', ARGV[2])
end
"""

_INBOX = """
with recorded as (
  insert into inbox (subscriber, source, event_id)
  select $1, source, event_id from unnest($2::text[], $3::text[]) as event (source, event_id)
  on conflict do nothing
  returning source, event_id
)
select array_agg(source), array_agg(event_id) from recorded
"""

_EFFECTS = """
insert into effect (event_id, order_id, user_id, total_amount)
select * from unnest($1::text[], $2::text[], $3::text[], $4::int8[])
"""

_BUSY_POLL_S = 0.1


class Data(msgspec.Struct, gc=False):
    """What the loop asks of an event's data."""

    order_id: str
    user_id: str
    total_amount: int


class Placed(msgspec.Struct, gc=False):
    """What the loop asks of an event."""

    id: str
    source: str
    data: Data


read = msgspec.json.Decoder(Placed).decode


class Recorder:
    """Gives each event of a batch its one durable effect."""

    def __init__(self, settings: Settings, subscriber: str, *, inbox_alone: bool = False) -> None:
        """`inbox_alone`: without claims in Redis."""
        self._settings = settings
        self._inbox_alone = inbox_alone
        self._subscriber = subscriber
        self._redis: Redis = Redis.from_url(settings.redis_url)
        self._claim = self._redis.register_script(_CLAIM)
        self._done = self._redis.register_script(_DONE)
        self._lock_ms, self._done_ms = (
            int(time_s * 1_000) for time_s in (settings.claim_lock_s, settings.claim_done_s)
        )

    async def __aenter__(self) -> Self:
        self._postgres = await asyncpg.connect(self._settings.postgres_dsn)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._postgres.close()
        await self._redis.aclose()

    async def record(self, bodies: Iterable[bytes]) -> None:
        """Returns once every event's effect is committed and its claim marked done."""
        if events := await self.claim(bodies):
            await self.write(events.values())
            await self.mark_done(events)

    async def claim(self, bodies: Iterable[bytes]) -> dict[str, Placed]:
        """The events that are not done yet, by the keys of their claims, which are ours now."""
        events = self.by_keys(map(read, bodies))
        return events if self._inbox_alone else await self.claimed(events)

    def by_keys(self, events: Iterable[Placed]) -> dict[str, Placed]:
        """Each by the key of its claim."""
        prefix = f"tandem:claim:{self._subscriber}:"
        return {f"{prefix}{event.source}:{event.id}": event for event in events}

    async def claimed(self, events: dict[str, Placed]) -> dict[str, Placed]:
        """Those that are not done yet, and are ours now."""
        keys, done = list(events), set[str]()
        while keys:
            answers = await self._claim(args=[orjson.dumps(keys), "owner", self._lock_ms])
            done.update(key for key, answer in zip(keys, answers, strict=True) if answer == -1)
            keys = [key for key, answer in zip(keys, answers, strict=True) if answer == 0]
            if keys:
                await asyncio.sleep(_BUSY_POLL_S)
        return {key: event for key, event in events.items() if key not in done} if done else events

    async def write(self, events: Iterable[Placed]) -> None:
        """Commit the effects of those that the inbox does not know."""
        new = list(events)
        sources, ids = [event.source for event in new], [event.id for event in new]
        async with self._postgres.transaction():
            [recorded] = await self._postgres.fetch(_INBOX, self._subscriber, sources, ids)
            fresh_sources, fresh_ids = recorded[0] or (), recorded[1] or ()
            if len(fresh_ids) < len(new):
                fresh = set(zip(fresh_sources, fresh_ids, strict=True))
                new = [event for event in new if (event.source, event.id) in fresh]
                ids = [event.id for event in new]
            data = [event.data for event in new]
            await self._postgres.execute(
                _EFFECTS,
                ids,
                [row.order_id for row in data],
                [row.user_id for row in data],
                [row.total_amount for row in data],
            )

    async def mark_done(self, events: Mapping[str, Placed]) -> None:
        """Mark the claims of these as done."""
        if not self._inbox_alone:
            await self._done(args=[orjson.dumps(list(events)), self._done_ms])


def run_until_told(loop: Coroutine[Any, Any, None], stopping: asyncio.Event) -> None:
    """Run `loop` on uvloop and with the garbage collector at rest, as the services do; SIGTERM sets `stopping`."""

    async def whole() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        await loop

    rest_garbage_collector()
    uvloop.run(whole())
