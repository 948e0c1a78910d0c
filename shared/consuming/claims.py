"""Redis claims: who may process an event now.

A claim's key is `tandem:claim:{subscriber}:{length of source}:{source}:{id}`; its value is one of

    d                     done: the effect is recorded (lives `claim_done_s`)
    l:<owner>:<attempts>  locked by a process (lives `claim_lock_s`)
    f:<attempts>          free again after a failure, with the deliveries counted so far

A batch is claimed by one script (`SET NX` for each key inside it) and finished by one. Every process keeps a
heartbeat key; a lock whose owner's heartbeat is gone is taken over, so that a killed process blocks its events
for seconds, not for the lock's lifetime. That is safe because the inbox, not the claim, is the fence.
Attempts are counted here, outside the process, so that an event that kills its consumer is found out.
A claim that its own owner asks for again is the owner's still: an answer was lost on the way, or Redis was away
when it should have been released.

One Redis server, or one primary with replicas; the scripts reach keys outside `KEYS`, which Redis Cluster forbids.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import uuid4

import orjson
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import ReadOnlyError, RedisError

from shared import cancellation
from shared.consuming.scripts import Script, Scripts
from shared.envelope import Envelope
from shared.errors import UnavailableError
from shared.settings import Settings

_log = structlog.get_logger(__name__)

# The keys come as one JSON array: redis-py takes longer to pack 500 arguments than Redis to run the script. What
# all begin with comes once: of forty kilobytes more than half need not be written, read and parsed.
_CLAIM = """
local owner, lock_ms = ARGV[3], ARGV[4]
local first = 'l:' .. owner .. ':1'
local alive, answers = {}, {}
for i, rest in ipairs(cjson.decode(ARGV[1])) do
  local key = ARGV[2] .. rest
  local answer
  if redis.call('SET', key, first, 'NX', 'PX', lock_ms) then
    answer = 1
  else
    local value = redis.call('GET', key)
    local kind = string.sub(value, 1, 1)
    if kind == 'd' then
      answer = -1
    else
      local holder, attempts = string.match(value, '^l:([^:]*):(%d+)$')
      if kind == 'f' then
        answer = tonumber(string.sub(value, 3)) + 1
      elseif holder == owner then
        answer = tonumber(attempts)
      else
        if alive[holder] == nil then
          alive[holder] = redis.call('EXISTS', 'tandem:alive:' .. holder)
        end
        answer = alive[holder] == 0 and tonumber(attempts) + 1 or 0
      end
      if answer > 0 then
        redis.call('SET', key, 'l:' .. owner .. ':' .. answer, 'PX', lock_ms)
      end
    end
  end
  answers[i] = answer
end
return answers
"""

_DONE = """
for _, rest in ipairs(cjson.decode(ARGV[1])) do
  redis.call('SET', ARGV[2] .. rest, 'd', 'PX', ARGV[3])
end
"""

# Only the owner releases; the count of deliveries is kept, less the one that was nobody's fault.
_RELEASE = """
local mine = '^l:' .. string.gsub(ARGV[3], '%-', '%%-') .. ':(%d+)$'
for _, rest in ipairs(cjson.decode(ARGV[1])) do
  local key = ARGV[2] .. rest
  local value = redis.call('GET', key)
  local attempts = value and string.match(value, mine)
  if attempts and ARGV[5] == 'forget' then
    redis.call('DEL', key)
  elseif attempts then
    redis.call('SET', key, 'f:' .. math.floor(attempts - 1), 'PX', ARGV[4])
  end
end
"""


_PROBE_MS = 5_000

AnyScript = Script | AsyncScript
"""One of ours, or redis-py's where the server is reached in another way."""


class ClaimState(StrEnum):
    """Redis's answer to the question whether this process may process an event."""

    NEW = "new"
    """Ours now."""
    BUSY = "busy"
    """A living process holds it: come back later, never acknowledge."""
    DONE = "done"
    """The effect is recorded: acknowledge."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer for one event; `attempt` counts from 1 how often it was claimed (NEW only, else 0)."""

    state: ClaimState
    attempt: int = 0


_BUSY = Claim(ClaimState.BUSY)
_DONE_CLAIM = Claim(ClaimState.DONE)
FIRST = Claim(ClaimState.NEW, 1)
"""Ours, and nobody's before: nearly always."""


def _claim(answer: int) -> Claim:
    if answer == 1:
        return FIRST
    if answer > 1:
        return Claim(ClaimState.NEW, answer)
    return _BUSY if answer == 0 else _DONE_CLAIM


def _keys(subscriber: str, events: Sequence[Envelope]) -> tuple[str, list[str]]:
    """What all keys begin with, and the rest of each: of events of one source, as nearly all are, the ids."""
    start = f"tandem:claim:{subscriber}:"
    source = events[0].source if events else ""
    if [event.source for event in events].count(source) == len(events):
        return f"{start}{len(source)}:{source}:", [event.id for event in events]
    return start, [event.identity for event in events]


class Claims:
    """The claims of one process, which has effects of one batch of a subscription at a time.

    Its methods raise `UnavailableError` when Redis does not answer in time.
    """

    def __init__(self, settings: Settings, owner: str | None = None) -> None:
        self.owner = owner or uuid4().hex
        self._settings = settings
        self._redis: Redis = Redis.from_url(
            settings.redis_url,
            socket_timeout=settings.redis_timeout_s,
            socket_connect_timeout=settings.redis_timeout_s,
            retry=Retry(NoBackoff(), 1),  # one retry hides a connection that the server closed while idle
            max_connections=16,
            decode_responses=False,
        )
        self._lock_ms = int(settings.claim_lock_s * 1_000)
        self._scripts = Scripts(settings.redis_url, settings.redis_timeout_s)
        ours = Scripts.serves(settings.redis_url)
        register: Callable[[str], AnyScript] = self._scripts.register if ours else self._redis.register_script
        self._claim_script = register(_CLAIM)
        self._done_script = register(_DONE)
        self._release_script = register(_RELEASE)
        self._beside: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def heartbeat(self) -> AsyncIterator[None]:
        """Keep this process's heartbeat alive; on leaving remove it, so that its claims are free at once."""
        with contextlib.suppress(UnavailableError):  # the pulse goes on trying
            await self._beat()
        pulse = asyncio.create_task(self._pulse(), name="claims-heartbeat")
        try:
            yield
        finally:
            await cancellation.end(pulse)
            with contextlib.suppress(asyncio.CancelledError):
                await pulse
            with contextlib.suppress(RedisError, OSError, TimeoutError):  # it runs out by itself
                await self._redis.delete(f"tandem:alive:{self.owner}")

    async def _beat(self) -> None:
        try:
            await self._redis.set(f"tandem:alive:{self.owner}", 1, px=int(self._settings.heartbeat_ttl_s * 1_000))
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis: {error}") from error

    async def _pulse(self) -> None:
        healthy = True
        while True:
            await asyncio.sleep(self._settings.heartbeat_interval_s)
            try:
                await self._beat()
            except UnavailableError as error:
                if healthy:
                    _log.warning("redis.unavailable", error=str(error))
                healthy = False
            else:
                if not healthy:
                    _log.info("redis.back")
                healthy = True

    async def claim(self, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
        """Claim the events; return one answer for each, in order. They must differ from each other."""
        answers = await self._run(self._claim_script, subscriber, events, self.owner, self._lock_ms)
        if answers.count(1) == len(answers):  # nearly always
            return [FIRST] * len(answers)
        return [_claim(answer) for answer in answers]

    async def done(self, subscriber: str, events: Sequence[Envelope]) -> None:
        """Mark that the effects are recorded."""
        await self._run(self._done_script, subscriber, events, int(self._settings.claim_done_s * 1_000))

    async def release(self, subscriber: str, events: Sequence[Envelope], *, forget: bool = False) -> None:
        """Give claims of ours back without counting this delivery; `forget` drops the earlier ones too."""
        how = "forget" if forget else "keep"
        await self._run(self._release_script, subscriber, events, self.owner, self._lock_ms, how)

    async def _run(
        self, script: AnyScript, subscriber: str, events: Sequence[Envelope], *arguments: str | int
    ) -> Any:
        return await self._run_on(script, *_keys(subscriber, events), *arguments)

    async def _run_on(self, script: AnyScript, start: str, rests: Sequence[str], *arguments: str | int) -> Any:
        try:
            return await script(args=(orjson.dumps(rests), start, *arguments))
        except (RedisError, OSError, TimeoutError) as error:
            if isinstance(error, ReadOnlyError):
                # A primary that became a replica keeps its connections. New ones go to where its name leads now.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise UnavailableError(f"Redis: {error}") from error

    async def ping(self) -> None:
        """Claim something, as batches are claimed. Raises `UnavailableError` when Redis does not answer in time or
        does not let it: one that is full, or a replica, answers a `PING` all the same."""
        await self._run_on(self._claim_script, "tandem:probe:", [self.owner], self.owner, _PROBE_MS)

    def beside(self, action: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what need not be waited for now; `close` waits for it, as long as Redis may take."""
        task = asyncio.create_task(action, name="claims-beside")
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._beside:
            await asyncio.wait(self._beside)
        self._scripts.close()
        await self._redis.aclose()
