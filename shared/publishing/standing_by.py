"""What a relay does while nothing waits: what it is handed it publishes at once, beside what is under way.

Each unit of work's events go by themselves, and wait for nobody else's confirmation. Of a key only one publish is
under way, so the order per key is what it is without (`shared.publishing.doorbell`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from contextvars import copy_context

from shared.publishing.doorbell import Doorbell, Row
from shared.publishing.outbox_reader import OutboxReader
from shared.publishing.sending import Sending
from shared.publishing.sent import Outcome

UNDER_WAY_MAX = 8
"""With what is not deleted yet they are fewer than make the next one to write give up looking
(`outbox.publishing`). Where more come at once, one look and one batch for all of them cost less."""
_DELETED_WITHIN_S = 0.1
_UNDELETED_MAX = 16
"""What was handed over and confirmed is deleted then, a few at once, where no look does it before."""


class StandingBy:
    """Of a relay that has found nothing, until there is something to look for."""

    def __init__(self, doorbell: Doorbell, reader: OutboxReader, sending: Sending, confirmed: list[int]) -> None:
        """`confirmed` gets the places of what was confirmed; what was deleted is taken out of it."""
        self._doorbell = doorbell
        self._reader = reader
        self._sending = sending
        self._confirmed = confirmed
        self._delete_at = 0.0
        self._under_way: dict[asyncio.Task[None], Collection[str]] = {}
        """Each with its keys."""
        self._failed: list[Outcome] = []
        self._error: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()  # not that of the request whose commit begins a publish

    async def until(self, look_at: float, *, takes: bool) -> Sequence[Outcome]:
        """Publish what is handed over, if it `takes` any, until there is something to look for or the clock says
        `look_at`. Nothing is under way then. Return what failed, and what ended after it."""
        if takes:
            self._doorbell.open(self._take)
        try:
            await self._wait_and_delete(look_at)
            self._doorbell.close()
            await self._all_ended()  # within the publisher's own time
        finally:
            await self._cancel()
        if self._error is not None:
            raise self._error
        return self._failed

    async def _wait_and_delete(self, look_at: float) -> None:
        while not self._doorbell.is_rung and (now := time.monotonic()) < look_at:
            if self._confirmed and (now >= self._delete_at or len(self._confirmed) >= _UNDELETED_MAX):
                await self._delete()
            else:
                wake_at = min(self._delete_at, look_at) if self._confirmed else look_at
                await self._doorbell.wait(wake_at - now)

    async def _all_ended(self) -> None:
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _cancel(self) -> None:
        """Leave nothing under way, whatever happened."""
        self._doorbell.close()
        for task in self._under_way:
            task.cancel()
        await self._all_ended()

    async def _delete(self) -> None:
        gone = self._confirmed.copy()
        await self._reader.delete(gone)
        del self._confirmed[: len(gone)]
        self._delete_at = time.monotonic() + _DELETED_WITHIN_S
        self._sending.sent.tell()

    def _take(self, rows: Sequence[Row]) -> bool:
        keys = {row["key"] for row in rows}
        if (
            self._reader.is_lost  # and the lead with it
            or len(self._under_way) >= UNDER_WAY_MAX
            or not all(keys.isdisjoint(others) for others in self._under_way.values())
        ):
            return False
        task = self._loop.create_task(self._publish(rows), context=self._context)
        self._under_way[task] = keys
        task.add_done_callback(self._ended)
        return True

    async def _publish(self, rows: Sequence[Row]) -> None:
        outcome = await self._sending.publish(rows)
        if outcome.failures or self._failed:
            self._failed.append(outcome)
            self._doorbell.ring()
            return
        self._sending.confirmed(outcome)
        if not self._confirmed:
            self._delete_at = time.monotonic() + _DELETED_WITHIN_S
            self._doorbell.wake()
        self._confirmed += outcome.confirmed
        if len(self._confirmed) >= _UNDELETED_MAX:
            self._doorbell.wake()

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error
            self._doorbell.ring()
