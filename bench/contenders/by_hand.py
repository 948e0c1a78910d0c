"""Records a batch for both hand-written loops, with the least code that a careful engineer would trust.

One Redis script claims, one transaction of two multi-row inserts (asyncpg) records, one script marks done.
It has no isolation of a bad event, no retries, no dead letters, no traces: whatever goes wrong ends the process.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterable
from typing import Any, Self

import asyncpg
import orjson
import uvloop
from redis.asyncio import Redis

from shared.garbage import rest_garbage_collector
from shared.settings import Settings

_CLAIM = """
local answers = {}
for i, key in ipairs(KEYS) do
  if redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2]) then
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
for _, key in ipairs(KEYS) do
  redis.call('SET', key, 'd', 'PX', ARGV[1])
end
"""

_INBOX = """
insert into inbox (subscriber, source, event_id)
select $1, source, event_id from unnest($2::text[], $3::text[]) as event (source, event_id)
on conflict do nothing
returning source, event_id
"""

_EFFECTS = """
insert into effect (event_id, order_id, user_id, total_amount)
select * from unnest($1::text[], $2::text[], $3::text[], $4::int8[])
"""

_BUSY_POLL_S = 0.1


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

    async def __aenter__(self) -> Self:
        self._postgres = await asyncpg.connect(self._settings.postgres_dsn)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._postgres.close()
        await self._redis.aclose()

    async def record(self, bodies: Iterable[bytes]) -> None:
        """Returns once every event's effect is committed and its claim marked done."""
        events: dict[str, dict[str, Any]] = {}
        for body in bodies:
            event = orjson.loads(body)
            events[f"tandem:claim:{self._subscriber}:{event['source']}:{event['id']}"] = event
        if self._inbox_alone:
            await self._write(list(events.values()))
        elif open_keys := await self._claimed(list(events)):
            await self._write([events[key] for key in open_keys])
            await self._done(keys=open_keys, args=[int(self._settings.claim_done_s * 1_000)])

    async def _claimed(self, keys: list[str]) -> list[str]:
        mine: list[str] = []
        while keys:
            answers = await self._claim(keys=keys, args=["owner", int(self._settings.claim_lock_s * 1_000)])
            mine += [key for key, answer in zip(keys, answers, strict=True) if answer == 1]
            keys = [key for key, answer in zip(keys, answers, strict=True) if answer == 0]
            if keys:
                await asyncio.sleep(_BUSY_POLL_S)
        return mine

    async def _write(self, events: list[dict[str, Any]]) -> None:
        sources, ids = [event["source"] for event in events], [event["id"] for event in events]
        async with self._postgres.transaction():
            rows = await self._postgres.fetch(_INBOX, self._subscriber, sources, ids)
            if len(rows) < len(events):
                fresh = {(row["source"], row["event_id"]) for row in rows}
                events = [event for event in events if (event["source"], event["id"]) in fresh]
            data = [event["data"] for event in events]
            await self._postgres.execute(
                _EFFECTS,
                [event["id"] for event in events],
                [row["order_id"] for row in data],
                [row["user_id"] for row in data],
                [row["total_amount"] for row in data],
            )


def run_until_told(loop: Coroutine[Any, Any, None], stopping: asyncio.Event) -> None:
    """Run `loop` on uvloop and with the garbage collector at rest, as the services do; SIGTERM sets `stopping`."""

    async def whole() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        await loop

    rest_garbage_collector()
    uvloop.run(whole())
