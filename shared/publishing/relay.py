"""Message Relay: moves outbox rows to the broker, confirmed, in order per key, and deletes what was confirmed.

One relay is active per shard however many replicas run: it holds a PostgreSQL advisory lock on the very
connection that it reads and deletes with, so that losing the one is losing the other. Killed between publish
and delete, its successor publishes again; consumers drop the duplicate. Woken by `NOTIFY`, or told by who commits
in the same process, with polling as the fallback. While a full batch is published the next one is read; while
nothing waits, what is handed over is published without being read (`shared.publishing.standing_by`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

import asyncpg
import structlog

from shared.backoff import backoff_s, jittered_s
from shared.broker import Publisher, PublishFailure
from shared.database import SESSION_LOST, session
from shared.errors import PermanentError, UnroutableError
from shared.publishing.doorbell import Doorbell, Row
from shared.publishing.leading import Leading
from shared.publishing.outbox import NOTIFY_CHANNEL
from shared.publishing.outbox_reader import IN_ORDER_OF_INDEX, OutboxReader
from shared.publishing.sending import Sending
from shared.publishing.sent import Outcome
from shared.publishing.standing_by import StandingBy
from shared.settings import Settings
from shared.telemetry import Telemetry

_log = structlog.get_logger(__name__)

_LOCK_CLASS = 0x7A4D  # the first key of our advisory locks; the second is the shard
_WAIT_INITIAL_S = 0.1
_WAIT_MAX_S = 2.0
_HELD_KEYS_MAX = 10_000
_UNWANTED_HOLD_S = 5.0
"""For how long the key of a message waits that the broker, though there, does not take."""

_BUSY_ROWS = 4
_REST_MAX_S = 0.025
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
        self._sending = Sending(settings, publisher, telemetry, clock)
        self._shard = shard
        self._doorbell = Doorbell()
        self._leading = leading or Leading(settings.relay_shards)
        self._confirmed: list[int] = []
        """The places of what is confirmed and not deleted yet."""
        self._held: dict[str, float] = {}

    @property
    def trouble(self) -> str | None:
        """Why no event has left for a while though some wait, for a person; None while all is well."""
        return self._sending.trouble

    async def run(self) -> None:
        """Publish whenever this shard's lock is free; survive the loss of PostgreSQL and of the broker."""
        while True:
            try:
                async with session(  # its end frees the lock
                    self._settings, f"relay-{self._shard}", **IN_ORDER_OF_INDEX
                ) as connection:
                    await self._wait_for_lead(connection)
                    with self._leading.of(self._shard, self._doorbell):
                        await self._lead(connection)
            except SESSION_LOST as error:
                self._sending.waiting_since = None  # PostgreSQL's trouble, or another's turn
                _log.warning("relay.database_lost", shard=self._shard, error=str(error) or type(error).__name__)
                await asyncio.sleep(self._settings.relay_poll_interval_s)

    async def _wait_for_lead(self, connection: asyncpg.Connection[Any]) -> None:
        # Polled: a session that dies gives its lock up without telling anyone.
        while not await connection.fetchval(_TRY_LOCK, _LOCK_CLASS, self._shard):  # noqa: ASYNC110
            await asyncio.sleep(self._settings.relay_poll_interval_s)
        _log.info("relay.leads", shard=self._shard)

    async def _lead(self, connection: asyncpg.Connection[Any]) -> None:
        await connection.add_listener(NOTIFY_CHANNEL, lambda *_: self._doorbell.ring())
        reader = OutboxReader(self._settings, self._shard, connection)
        self._confirmed = []
        try:
            while True:
                began_s = time.monotonic()
                self._doorbell.begin_look()
                rows = await reader.next(self._kept_back(), self._confirmed)
                self._confirmed = []
                if not rows:
                    await self._stand_by(reader)
                while rows:
                    rows = await self._publish_found(reader, rows, began_s)
                    began_s = time.monotonic()
        finally:
            self._doorbell.begin_look()
            self._sending.sent.tell()
            if self._confirmed:  # or the next to lead would publish it again
                with contextlib.suppress(*SESSION_LOST):
                    await reader.delete(self._confirmed)

    async def _publish_found(self, reader: OutboxReader, rows: Sequence[Row], began_s: float) -> Sequence[Row]:
        """Publish what a look found; return what was read behind a full batch meanwhile."""
        batch_max = self._settings.relay_batch_max
        full = len(rows) == batch_max
        ahead = reader.next(self._kept_back(), self._confirmed, _places(rows)) if full else None
        confirmed, following = await self._publish(reader, rows, ahead)
        self._confirmed = confirmed if full else [*self._confirmed, *confirmed]
        if _BUSY_ROWS <= len(rows) < batch_max // 2:
            await asyncio.sleep(min(time.monotonic() - began_s, _REST_MAX_S))
        return following

    async def _stand_by(self, reader: OutboxReader) -> None:
        """Nothing is there: until there is something to look for, publish what is handed over."""
        if not self._held:
            self._sending.waiting_since = None
        self._sending.sent.tell()
        standing_by = StandingBy(self._doorbell, reader, self._sending, self._confirmed)
        look_at = time.monotonic() + self._settings.relay_poll_interval_s
        if failed := await standing_by.until(look_at, takes=not self._held):
            await self._settle(reader, failed)

    def _kept_back(self) -> Collection[str]:
        """The keys that wait."""
        now = time.monotonic()
        self._held = {key: until for key, until in self._held.items() if until > now}
        return self._held

    async def _publish(
        self,
        reader: OutboxReader,
        rows: Sequence[Row],
        ahead: Coroutine[Any, Any, Sequence[Row]] | None,
    ) -> tuple[list[int], Sequence[Row]]:
        """Publish these rows and meanwhile read those `ahead`; return the places of what is confirmed, for the
        next look to delete, and what was read.

        What was read behind a batch in which something failed is left, since those keys come first.
        """
        outcome, following = await _side_by_side(self._sending.publish(rows), ahead)
        if outcome.failures:
            await self._settle(reader, [outcome])
            return [], ()
        self._sending.confirmed(outcome)
        return outcome.confirmed, following

    async def _settle(self, reader: OutboxReader, outcomes: Sequence[Outcome]) -> None:
        """Where something failed: delete the rest, and wait."""
        failures = self._sending.failed(outcomes)
        confirmed = [place for outcome in outcomes for place in outcome.confirmed]
        if confirmed:
            await reader.delete(confirmed)
        await self._back_off(failures, everything=not confirmed)

    async def _back_off(self, failures: Sequence[PublishFailure], *, everything: bool) -> None:
        """Hold back the keys that failed, so that they stay in order while the others go on.

        When the broker is away, or too many keys are held back, everything waits.
        """
        _log.warning("relay.not_confirmed", shard=self._shard, count=len(failures), error=str(failures[0].error))
        unwanted = {f.message.key for f in failures if isinstance(f.error, UnroutableError | PermanentError)}
        others = {failure.message.key for failure in failures} - unwanted
        now = time.monotonic()
        self._held.update((key, now + jittered_s(_UNWANTED_HOLD_S, random.random)) for key in unwanted)
        if not others and len(self._held) <= _HELD_KEYS_MAX:
            return
        wait_s = backoff_s(self._sending.failures_in_a_row, _WAIT_INITIAL_S, _WAIT_MAX_S, random.random)
        self._sending.failures_in_a_row += 1
        if everything or len(self._held) > _HELD_KEYS_MAX:
            await asyncio.sleep(wait_s)
        else:
            self._held.update((key, now + wait_s) for key in others)


def _places(rows: Sequence[Row]) -> list[int]:
    return [row["position"] for row in rows]


async def _side_by_side(
    publishing: Coroutine[Any, Any, Outcome],
    ahead: Coroutine[Any, Any, Sequence[Row]] | None,
) -> tuple[Outcome, Sequence[Row]]:
    """Both results. Whatever becomes of the one, the other has ended."""
    if ahead is None:
        return await publishing, ()
    published, read = await asyncio.gather(publishing, ahead, return_exceptions=True)
    if isinstance(published, BaseException):
        raise published
    if isinstance(read, BaseException):
        raise read
    return published, read
