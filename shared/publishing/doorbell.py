"""How a relay hears that there is something to publish: it is told so, or it is handed the very rows.

Whoever commits beside a relay that stands by hands it the rows, and they are not read again. That keeps the order
per key and at-least-once, because

- the statement that wrote them saw no other row of their keys, and all rows there were (`outbox.publishing`). So
  what was committed before it under these keys is deleted, and deleted is what was confirmed. What commits while
  it runs has no order with it: who wants one takes a lock first, by a statement before.
- from before that statement until they are handed over no look began: they are not published yet. A ticket says
  so, which is good until the next look.
- the relay publishes them as it does what it finds: one batch after the other. If that fails it looks for them,
  with whatever has come behind. They stay in the outbox until they are confirmed, for the next relay if this one
  ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol


class Row(Protocol):
    """Of the outbox, with its `position`; read from it or handed over."""

    def __getitem__(self, column: str, /) -> Any: ...


ROWS_MAX = 8
"""More at once are not a lone event's hand-over: one look finds them all."""
BYTES_MAX = 256 * 1024


class Doorbell:
    """Of the relay of one shard, which waits at it."""

    def __init__(self) -> None:
        self._ticket: int | None = None
        self._looks = 0
        self._rung = False
        self._rows: list[Row] = []
        self._waits: asyncio.Future[bool] | None = None

    # -- for those who commit

    def ring(self) -> None:
        """There is something to look for."""
        self._rung = True
        self._end_wait()

    def ticket(self) -> int | None:
        """To be had before rows are written that may be handed over; None where the relay had better look."""
        return None if self._rung or len(self._rows) >= ROWS_MAX else self._ticket

    def hand_over(self, ticket: int, rows: Sequence[Row]) -> None:
        """These rows, in order of their places, are committed. If the ticket holds no more, the relay looks."""
        if self._rung or ticket != self._ticket or len(self._rows) + len(rows) > ROWS_MAX:
            self.ring()
        else:
            self._rows += rows
            self._end_wait()

    # -- for the relay

    @property
    def is_rung(self) -> bool:
        """Whether there is something to look for."""
        return self._rung

    def open(self) -> None:
        """The relay stands by: it has looked, found nothing, and holds nothing back."""
        self._ticket = self._looks

    def begin_look(self) -> None:
        """A look begins, or the relay leads no more: whatever is committed by now is in the outbox to be found."""
        self._looks += 1
        self._ticket = None
        self._rung = False
        self._rows = []

    def take(self) -> Sequence[Row]:
        """What was handed over; none if there is something to look for, since that look finds it, too."""
        if self._rung:
            return ()
        rows, self._rows = self._rows, []
        return rows

    async def wait(self, seconds: float) -> bool:
        """Whether somebody rang or handed something over within so many seconds."""
        if self._rung or self._rows:
            return True
        loop = asyncio.get_running_loop()
        self._waits = loop.create_future()
        timer = loop.call_later(seconds, _end, self._waits, False)
        try:
            return await self._waits
        finally:
            timer.cancel()
            self._waits = None

    def _end_wait(self) -> None:
        if self._waits is not None:
            _end(self._waits, True)


def _end(waits: asyncio.Future[bool], heard: bool) -> None:
    if not waits.done():
        waits.set_result(heard)
