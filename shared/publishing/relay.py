"""Message Relay: moves outbox rows to the broker, confirmed, in order per key, and deletes what was confirmed.

One relay is active per shard however many replicas run: it holds a PostgreSQL advisory lock on the very
connection that it reads and deletes with, so that losing the one is losing the other. Killed between publish
and delete, its successor publishes again; consumers drop the duplicate. Woken by `NOTIFY`, or by who commits in
the same process, with polling as the fallback.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import asyncpg
import structlog

from shared import failpoints
from shared.backoff import backoff_s, jittered_s
from shared.broker import Message, Publisher, PublishFailure
from shared.database import SESSION_LOST, session
from shared.errors import PermanentError, UnavailableError, UnroutableError
from shared.publishing.leading import Leading
from shared.publishing.outbox import NOTIFY_CHANNEL
from shared.settings import Settings
from shared.telemetry import Telemetry

_log = structlog.get_logger(__name__)

_LOCK_CLASS = 0x7A4D  # the first key of our advisory locks; the second is the shard
_WAIT_INITIAL_S = 0.1
_WAIT_MAX_S = 2.0
_HELD_KEYS_MAX = 10_000
_UNWANTED_HOLD_S = 5.0
"""For how long the key of a message waits that the broker, though there, does not take."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""What is published at once, unless the first event alone is larger: the largest events are few at once."""
STANDS_STILL_S = 50.0
"""Told then, and asked for by probes every few seconds, it is known within a minute."""

_FETCH = """
with gone as (delete from outbox where position = any($6::bigint[])),
     weight as (
        select coalesce(sum(size), 0) as bytes
          from (
                select octet_length(body) as size
                  from outbox
                 where shard % $1 = $2 and key <> all($3::text[]) and position <> all($6::bigint[])
                 order by position
                 limit $4
               ) as next
     )
select bytes, next.*
  from weight
  left join lateral (
        select position, channel, type, key, event_id, traceparent, body
          from outbox
         where bytes <= $5 and shard % $1 = $2 and key <> all($3::text[]) and position <> all($6::bigint[])
         order by position
         limit $4
       ) as next on true
"""
"""Deletes what was confirmed, and reads the next ones if all together are light enough, as nearly always: the sum
costs half of what weighing one by one does. Where none is read, one row has no position."""
_FETCH_AS_FAR_AS_LIGHT = """
select position, channel, type, key, event_id, traceparent, body
  from (
        select next.*, sum(octet_length(body)) over (order by position rows unbounded preceding) as bytes_so_far
          from (
                select * from outbox
                 where shard % $1 = $2 and key <> all($3::text[])
                 order by position
                 limit $4
               ) as next
       ) as weighed
 where bytes_so_far <= $5 or bytes_so_far = octet_length(body)
 order by position
"""
_IN_ORDER_OF_INDEX = {"enable_seqscan": "off"}
"""For the relay's session: a table that is filled and emptied all the time has no statistics that are true, and
by false ones PostgreSQL reads and sorts a whole backlog for each batch."""
_DELETE = "delete from outbox where position = any($1::bigint[])"

_DELETED_BESIDE_MAX = 16
"""So many at most are deleted by the next look, which compares each row that it finds with all of them."""
_BUSY_ROWS = 4
_REST_MAX_S = 0.01
"""A look, a publish and a delete cost the same for one event as for twenty. So while events come faster than that
goes, the relay rests as long as it worked, at most so long, and takes more at once. To an idle one nothing of this
happens."""

_TRY_LOCK = "select pg_try_advisory_lock($1, $2)"


class Relay:
    """Moves the outbox rows of one shard. `run` never returns by itself; cancel it to stop."""

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        telemetry: Telemetry,
        shard: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        leading: Leading | None = None,
    ) -> None:
        """`leading` is told while it leads, for those who commit in the same process."""
        self._settings = settings
        self._clock = clock
        self._publisher = publisher
        self._telemetry = telemetry
        self._shard = shard
        self._woken = asyncio.Event()
        self._leading = leading or Leading(settings.relay_shards)
        self._held: dict[str, float] = {}
        self._failures_in_a_row = 0
        self._waiting_since: float | None = None
        """Since when something has waited and nothing was confirmed; None while that is not so."""
        self._refusal = ""
        self._fail_points = failpoints.FailPoints.told(settings.failpoints)

    @property
    def trouble(self) -> str | None:
        """Why no event has left for `STANDS_STILL_S` though some wait, for a person; None while all is well."""
        since = self._waiting_since
        if since is None or self._clock() - since < STANDS_STILL_S:
            return None
        return f"stands still, with events waiting: {self._refusal}"

    async def run(self) -> None:
        """Publish whenever this shard's lock is free; survive the loss of PostgreSQL and of the broker."""
        while True:
            try:
                async with session(  # its end frees the lock
                    self._settings, f"relay-{self._shard}", **_IN_ORDER_OF_INDEX
                ) as connection:
                    await self._wait_for_lead(connection)
                    with self._leading.of(self._shard, self._woken.set):
                        await self._lead(connection)
            except SESSION_LOST as error:
                self._waiting_since = None  # PostgreSQL's trouble, or another's turn
                _log.warning("relay.database_lost", shard=self._shard, error=str(error) or type(error).__name__)
                await asyncio.sleep(self._settings.relay_poll_interval_s)

    async def _wait_for_lead(self, connection: asyncpg.Connection[Any]) -> None:
        # Polled: a session that dies gives its lock up without telling anyone.
        while not await connection.fetchval(_TRY_LOCK, _LOCK_CLASS, self._shard):  # noqa: ASYNC110
            await asyncio.sleep(self._settings.relay_poll_interval_s)
        _log.info("relay.leads", shard=self._shard)

    async def _lead(self, connection: asyncpg.Connection[Any]) -> None:
        await connection.add_listener(NOTIFY_CHANNEL, lambda *_: self._woken.set())
        confirmed: list[int] = []
        while True:
            self._woken.clear()
            began_s = time.monotonic()
            rows = await self._fetch(connection, confirmed)
            confirmed = []
            if rows:
                confirmed = await self._publish(connection, rows)
                if _BUSY_ROWS <= len(rows) < self._settings.relay_batch_max // 2:
                    await asyncio.sleep(min(time.monotonic() - began_s, _REST_MAX_S))
            else:
                if not self._held:
                    self._waiting_since = None
                await self._wait(self._settings.relay_poll_interval_s)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)

    async def _fetch(self, connection: asyncpg.Connection[Any], confirmed: list[int]) -> list[asyncpg.Record]:
        """The next rows, behind what is `confirmed`, which is deleted."""
        now = time.monotonic()
        self._held = {key: until for key, until in self._held.items() if until > now}
        arguments = (
            self._settings.relay_shards,
            self._shard,
            list(self._held),
            self._settings.relay_batch_max,
            BATCH_BYTES_MAX,
        )
        rows: list[asyncpg.Record] = await connection.fetch(_FETCH, *arguments, confirmed)
        if rows[0]["position"] is not None:
            return sorted(rows, key=itemgetter("position"))
        return await connection.fetch(_FETCH_AS_FAR_AS_LIGHT, *arguments) if rows[0]["bytes"] else []

    async def _publish(self, connection: asyncpg.Connection[Any], rows: Sequence[asyncpg.Record]) -> list[int]:
        """Publish these rows; delete those that are confirmed, or return their positions for the next look."""
        started_ns = time.time_ns()
        if self._waiting_since is None:
            self._waiting_since = self._clock()
        messages = [Message(row["channel"], row["type"], row["key"], row["body"]) for row in rows]
        if self._fail_points is not None:
            self._fail_points.reach(failpoints.BEFORE_PUBLISH)
        try:
            failures = await self._publisher.publish(messages)
        except UnavailableError as error:
            failures = [PublishFailure(message, error) for message in messages]
        if self._fail_points is not None:
            self._fail_points.reach(failpoints.AFTER_PUBLISH)
        failed = {id(failure.message) for failure in failures}
        confirmed = [row for row, message in zip(rows, messages, strict=True) if id(message) not in failed]
        unconfirmed = [row for row, message in zip(rows, messages, strict=True) if id(message) in failed]
        gone: list[int] = [row["position"] for row in confirmed]
        if gone and (failures or len(gone) > _DELETED_BESIDE_MAX):
            await connection.execute(_DELETE, gone)
            gone = []
        if confirmed:
            self._waiting_since = self._clock() if failures else None
        self._record(rows, frozenset(row["event_id"] for row in unconfirmed), started_ns)
        if failures:
            await self._back_off(failures, everything=not confirmed)
        else:
            self._failures_in_a_row = 0
        return gone

    def _record(self, rows: Sequence[asyncpg.Record], failed: frozenset[str], started_ns: int) -> None:
        for channel in sorted({row["channel"] for row in rows}):
            events = [(r["event_id"], r["type"], r["traceparent"]) for r in rows if r["channel"] == channel]
            self._telemetry.sent(channel, events, started_ns, failed & {event_id for event_id, _, _ in events})

    async def _back_off(self, failures: Sequence[PublishFailure], *, everything: bool) -> None:
        """Hold back the keys that failed, so that they stay in order while the others go on.

        When the broker is away, or too many keys are held back, everything waits.
        """
        self._refusal = str(failures[0].error)
        _log.warning("relay.not_confirmed", shard=self._shard, count=len(failures), error=str(failures[0].error))
        unwanted = {f.message.key for f in failures if isinstance(f.error, UnroutableError | PermanentError)}
        others = {failure.message.key for failure in failures} - unwanted
        now = time.monotonic()
        self._held.update((key, now + jittered_s(_UNWANTED_HOLD_S, random.random)) for key in unwanted)
        if not others and len(self._held) <= _HELD_KEYS_MAX:
            return
        self._failures_in_a_row += 1
        wait_s = backoff_s(self._failures_in_a_row, _WAIT_INITIAL_S, _WAIT_MAX_S, random.random)
        if everything or len(self._held) > _HELD_KEYS_MAX:
            await asyncio.sleep(wait_s)
        else:
            self._held.update((key, now + wait_s) for key in others)
