"""Acknowledges what is settled: a batch at once, and of messages that come by themselves several together.

For the queue an acknowledgement is a command, which it logs and syncs as it does a message: one by one, at a
hundred events a second, that is a third of the server's CPU. So where little comes it waits for others, for a
moment. What is settled has its effect: if its process dies meanwhile it comes again, as it may at any time, and is
known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog

from shared.broker.base import Settlement
from shared.broker.rabbit.errors import LOST
from shared.broker.rabbit.window import Held, Window

_log = structlog.get_logger(__name__)

_WAITING_MAX = 16
_WAIT_S = 0.1


class Ack(NamedTuple):
    """Of the message with this tag alone, or of all that came before it by its channel, too."""

    channel: Any
    tag: int
    covers: bool
    messages: int
    """How many it settles."""


class Acknowledging:
    """One consumer's."""

    def __init__(self, queue: str, in_flight_max: int) -> None:
        """Of `in_flight_max`, as many as the server sends without an answer, a quarter may wait at most."""
        self._queue = queue
        self._waiting_max = min(_WAITING_MAX, in_flight_max // 4)
        self._waiting: Ack | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self.failures = 0
        """How many messages come again although they were settled, since the server could not be told."""

    async def settle(self, batch: Sequence[Held], settlements: Sequence[Settlement], window: Window) -> None:
        """Acknowledge those of a batch that are settled, now or soon."""
        acks = acknowledgements(batch, settlements, window)
        if self._waiting is not None:
            first = acks[0] if acks else None
            if first is None or not first.covers or first.channel is not self._waiting.channel:
                await self.send_now()
            else:
                acks[0] = first._replace(messages=first.messages + self._waiting.messages)
                self._waiting = None
        if len(acks) == 1 and acks[0].covers and acks[0].messages <= self._waiting_max:
            self._wait(acks[0])
            return
        for ack in acks:
            await self._send(ack)

    async def send_now(self) -> None:
        """Send what waits, if anything does."""
        if self._sending is not None:
            await asyncio.wait([self._sending])
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            await self._send(waiting)

    def _wait(self, ack: Ack) -> None:
        self._waiting = ack
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WAIT_S, self._time_is_over)

    def _time_is_over(self) -> None:
        self._timer = None
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        if self._sending is not None and not self._sending.done():  # the server does not read
            self._wait(waiting)
        else:
            self._sending = asyncio.create_task(self._send(waiting), name=f"acknowledge-{self._queue}")

    async def _send(self, ack: Ack) -> None:
        try:
            await ack.channel.basic_ack(ack.tag, multiple=ack.covers)
        except LOST:
            self.failures += ack.messages
            _log.warning("rabbit.settlement_failed", queue=self._queue, count=ack.messages)


def acknowledgements(batch: Sequence[Held], settlements: Sequence[Settlement], window: Window) -> list[Ack]:
    """The acks to send, those that cover first.

    One per channel, up to the first message that is to be retried: it covers every older tag of its channel, and
    those are settled, since batches are handed over in the order of tags. One by one behind that; and behind the
    first message that is older and waits, since it was given back and came again.
    """
    covering: dict[int, Ack] = {}
    single: list[Ack] = []
    retried: set[int] = set()
    older: dict[int, float] = {}
    for held, settlement in zip(batch, settlements, strict=True):
        channel = id(held.channel)
        if channel not in older:
            older[channel] = window.lowest_tag(held.channel)
        if settlement is not Settlement.ACK:
            retried.add(channel)
        elif channel in retried or held.tag > older[channel]:
            single.append(Ack(held.channel, held.tag, covers=False, messages=1))
        else:
            before = covering.get(channel)
            messages = 1 if before is None else before.messages + 1
            covering[channel] = Ack(held.channel, held.tag, covers=True, messages=messages)
    return [*covering.values(), *single]
