"""How a relay hears that there is something to publish: it is told so, or it is handed the very rows.

Whoever commits beside a relay that stands by hands it the rows, and they are not read again. That keeps the order
per key and at-least-once, because

- the statement that wrote them saw no other row of their keys, and all rows there were (`outbox.publishing`). So
  what was committed before it under these keys is deleted, and deleted is what was confirmed. What commits while
  it runs has no order with it: who wants one takes a lock first, by a statement before.
- from before that statement until they are handed over no look began: they are not published yet. A ticket says
  so, which is good until the next look.
- what the relay does not take, because it is too much or a key of it is under way, and all that comes behind it,
  is looked for, once nothing is under way any more.
- if publishing them fails it looks for them, with whatever has come behind. They stay in the outbox until they are
  confirmed, for the next relay if this one ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Row(Protocol):
    """Of the outbox, with its `position`; read from it or handed over."""

    def __getitem__(self, column: str, /) -> Any: ...


ROWS_MAX = 8
"""More at once are not a lone event's hand-over: one look finds them all."""
BYTES_MAX = 256 * 1024

Take = Callable[[Sequence[Row]], bool]
"""Begins to publish rows, and waits for nothing. Returns False where it does not, and the relay has to look."""


class Doorbell:
    """Of the relay of one shard, which waits at it."""

    def __init__(self) -> None:
        self._take: Take | None = None
        self._looks = 0
        self._rung = False
        self._waits: asyncio.Future[bool] | None = None

    # -- for those who commit

    def ring(self) -> None:
        """There is something to look for."""
        if not self._rung:
            self._rung = True
            self.wake()

    def ticket(self) -> int | None:
        """To be had before rows are written that may be handed over; None where the relay had better look."""
        return None if self._rung or self._take is None else self._looks

    def hand_over(self, ticket: int, rows: Sequence[Row]) -> None:
        """These rows, in order of their places, are committed. If the ticket holds no more, the relay looks."""
        if self._rung or self._take is None or ticket != self._looks or not self._take(rows):
            self.ring()

    # -- for the relay

    @property
    def is_rung(self) -> bool:
        """Whether there is something to look for."""
        return self._rung

    def open(self, take: Take) -> None:
        """The relay stands by: it has looked, found nothing, and holds nothing back. `take` is handed rows."""
        self._take = take

    def close(self) -> None:
        """It is handed nothing any more: what is committed from now on it looks for."""
        self._take = None

    def begin_look(self) -> None:
        """A look begins, or the relay leads no more: whatever is committed by now is in the outbox to be found."""
        self.close()
        self._looks += 1
        self._rung = False

    def wake(self) -> None:
        """Whoever waits has something to do, if not to look."""
        if self._waits is not None:
            _end(self._waits, True)

    async def wait(self, seconds: float) -> bool:
        """Whether somebody rang, or woke it, within so many seconds."""
        if self._rung:
            return True
        loop = asyncio.get_running_loop()
        self._waits = loop.create_future()
        timer = loop.call_later(seconds, _end, self._waits, False)
        try:
            return await self._waits
        finally:
            timer.cancel()
            self._waits = None


def _end(waits: asyncio.Future[bool], heard: bool) -> None:
    if not waits.done():
        waits.set_result(heard)
