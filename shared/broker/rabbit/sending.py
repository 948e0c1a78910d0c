"""Publishes many messages as one write, where aiormq takes a task, two timers, a lock and four frames for each.

Why: publishing 500 at a time and reading what confirms them takes 72 µs of CPU for each on its way, and 16 here
(four pairs of runs by turns).

Shaped as a `basic_publish` of several messages that aiormq could take. Their numbers, their confirmations and what
is returned are kept where aiormq keeps its own, so that its reader confirms these, too. In place of a future for
each, which five callbacks watch, there is one for all, which a channel that is closed fails as it fails its own.
Frames are what its codec makes, with a body's size and a message's id put into their places. What this rests on of
aiormq's, tests/unit/test_rabbit_sending.py says when it is gone.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from functools import lru_cache
from random import getrandbits
from typing import Any, Final, NamedTuple

from aiormq import Channel, spec
from aiormq.abc import ChannelFrame
from pamqp.constants import FRAME_BODY, FRAME_END_CHAR
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from shared.broker.rabbit.internals import frame_bytes_max
from shared.broker.rabbit.sent import PERSISTENT

_FRAME: Final = struct.Struct(">BHI")
_FRAME_OVERHEAD_BYTES: Final = _FRAME.size + len(FRAME_END_CHAR)
_SIZE_AT: Final = 11
"""Where in a frame of a header the size of the body stands, of eight bytes."""
_ID_BYTES: Final = 32
"""Of which 24 are the same in all messages that are published at once."""


class Portion(NamedTuple):
    """What is published to one exchange at once: (routing key, content type, body) of each."""

    exchange: str
    messages: Sequence[tuple[str, str, bytes]]


class Confirmation:
    """Of one message: what aiormq asks of the future that it has in this place, and no more."""

    __slots__ = ("_all", "error", "is_awaited")

    def __init__(self, of_all: Confirmations) -> None:
        self._all = of_all
        self.is_awaited = True
        self.error: Exception | None = None
        """Why it has not been taken, or, once nobody waits any more, why that is not known."""

    def done(self) -> bool:
        """It has ended, or nobody waits for it any more."""
        return not self.is_awaited

    def cancelled(self) -> bool:
        """Nobody waits for it any more."""
        return isinstance(self.error, TimeoutError)

    def set_result(self, _frame: object) -> None:
        """The server has it."""
        self.is_awaited = False
        self._all.one_has_ended()

    def set_exception(self, error: Exception) -> None:
        """It was returned, or refused."""
        self.is_awaited, self.error = False, error
        self._all.one_has_ended()


class Confirmations:
    """Of messages that were published at once."""

    def __init__(self, channel: Channel, message_ids: Sequence[str]) -> None:
        self._channel = channel
        self._message_ids = message_ids
        self._left = len(message_ids)
        self._ended: asyncio.Future[object] = channel.create_future()  # it ends with the channel, if not before
        self.each = [Confirmation(self) for _ in message_ids]

    def one_has_ended(self) -> None:
        """One more of them."""
        self._left -= 1
        if not self._left:
            self.forget()
            if not self._ended.done():
                self._ended.set_result(None)

    def forget(self) -> None:
        """Nothing is returned any more of these messages."""
        for message_id in self._message_ids:
            self._channel.message_id_delivery_tag.pop(message_id, None)

    async def outcomes(self, deadline: float) -> list[Exception | None]:
        """Why each was not confirmed, once all have ended or the loop's clock says `deadline`; None where it was.

        `PublishError` for what was returned, `DeliveryError` for what was refused, the channel's reason when it is
        closed, else `TimeoutError`.
        """
        try:
            left_s = deadline - asyncio.get_running_loop().time()
            await asyncio.wait([self._ended], timeout=max(0.0, left_s))
        finally:
            reason = self.give_up()
            each, self.each = self.each, []  # they know it, so a garbage collector would have to find them
        return [reason if one.cancelled() else one.error for one in each]

    def give_up(self) -> Exception:
        """Wait no more. Return why what has not ended did not."""
        late = TimeoutError("not confirmed in time")
        if self._left:
            self.forget()
            for one in self.each:
                if one.is_awaited:
                    one.is_awaited, one.error = False, late
        self._ended.cancel()  # if it has ended that changes nothing
        if self._ended.cancelled():
            return late
        error = self._ended.exception()
        return error if isinstance(error, Exception) else ConnectionError(repr(error))


async def publish_at_once(channel: Channel, portion: Portion) -> Confirmations:
    """Write the messages, mandatory and persistent, without headers; return what confirms each.

    Raises what the codec raises, and what a closed channel raises: nothing was written then.
    """
    bytes_max = frame_bytes_max(channel) - _FRAME_OVERHEAD_BYTES
    beginning = f"{getrandbits(96):024x}"
    ids = [f"{beginning}{number:08x}" for number in range(len(portion.messages))]
    frames: list[bytes] = []
    for (routing_key, content_type, body), message_id in zip(portion.messages, ids, strict=True):
        head, middle, end = _header(channel.number, content_type)
        size = len(body)
        frames += (
            _method(channel.number, portion.exchange, routing_key),
            head,
            size.to_bytes(8, "big"),
            middle,
            message_id.encode(),
            end,
        )
        if 0 < size <= bytes_max:  # nearly always
            frames += (_FRAME.pack(FRAME_BODY, channel.number, size), body, FRAME_END_CHAR)
            continue
        for start in range(0, size, bytes_max):
            part = body[start : start + bytes_max]
            frames += (_FRAME.pack(FRAME_BODY, channel.number, len(part)), part, FRAME_END_CHAR)
    payload = b"".join(frames)
    async with channel.lock:
        before = channel.delivery_tag
        confirmations = Confirmations(channel, ids)
        tags = range(before + 1, before + 1 + len(ids))
        kept: dict[int, Any] = channel.confirmations
        try:
            channel.delivery_tag += len(ids)
            kept.update(zip(tags, confirmations.each, strict=True))
            channel.message_id_delivery_tag.update(zip(ids, tags, strict=True))
            await channel.write_queue.put(ChannelFrame(payload, should_close=False))
        except BaseException:  # the broker has not seen them: their numbers are the next ones'
            for tag in tags:
                kept.pop(tag, None)
            channel.delivery_tag = before
            confirmations.give_up()
            raise
    return confirmations


@lru_cache(maxsize=1_024)
def _method(channel: int, exchange: str, routing_key: str) -> bytes:
    frame = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
    return marshal(frame, channel)


@lru_cache(maxsize=256)
def _header(channel: int, content_type: str) -> tuple[bytes, bytes, bytes]:
    """The frame of a header up to the body's size, from there to the message's id, and from there on."""
    message_id = "m" * _ID_BYTES
    properties = spec.Basic.Properties(
        content_type=content_type, delivery_mode=PERSISTENT, headers={}, message_id=message_id
    )
    frame = marshal(ContentHeader(0, 0, properties), channel)
    head, _, end = frame.rpartition(message_id.encode())
    return head[:_SIZE_AT], head[_SIZE_AT + 8 :], end
