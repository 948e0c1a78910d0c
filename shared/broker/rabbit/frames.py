"""Cuts AMQP frames out of what has arrived, in place of aiormq's reader where that would wait for nothing.

Why: aiormq 7.2 reads every frame by three awaited reads under a lock and through a BytesIO. A delivery is three
frames, so nine reads; they took 29 % of a busy consumer's samples (docs/performance.md). A frame that lies in the
stream's buffer already, as nearly all do when there is much to read, can be cut out in one step, and a delivery
with all that belongs to it (`arriving`) in one, too. All else stays aiormq's: the handshake, a frame that has not
come whole, a connection that is lost.

Shaped as a change of `FrameReceiver.get_frame` that aiormq could take, except that it looks into asyncio's
`StreamReader`, which promises nothing of it; tests/unit/test_rabbit_frames.py says when that is gone.
"""

from __future__ import annotations

from typing import Any

import pamqp.frame
from aiormq import connection as aiormq_connection
from aiormq.exceptions import InvalidFrameError
from pamqp.exceptions import PAMQPException

from shared.broker.rabbit.arriving import whole_delivery

_HEADER_BYTES = 7
"""Type, channel and size; behind the content comes one byte more, the frame's end."""


class BufferedFrameReceiver(aiormq_connection.FrameReceiver):
    """aiormq's, with a short way for frames that are here already."""

    async def get_frame(self) -> Any:
        """The next frame: its size, its channel and what it says. Raises as aiormq's own."""
        await self._until_something_is_here()
        buffer = self._readable()
        if buffer is None:
            return await super().get_frame()
        delivery = whole_delivery(buffer)
        if delivery is not None:
            self._drop(buffer, delivery[0])
            return delivery
        end = _HEADER_BYTES + int.from_bytes(buffer[3:7], "big") + 1
        if len(buffer) < end:
            return await super().get_frame()
        raw = bytes(buffer[:end])
        self._drop(buffer, end)
        try:
            return pamqp.frame.unmarshal(raw)
        except PAMQPException as error:
            raise InvalidFrameError(str(error)) from error

    async def _until_something_is_here(self) -> None:
        """Wait as aiormq would, but before the first byte is taken. What ends the waiting is found there."""
        reader: Any = self.reader
        if self.started and not (reader._buffer or reader._eof or reader._exception or self.lock.locked()):
            try:
                await reader._wait_for_data("get_frame")
            except Exception:  # the one that aiormq's own reading raises again, in its words
                if reader._exception is None:
                    raise

    def _readable(self) -> bytearray | None:
        """What is here, if a frame begins there and nobody is reading it."""
        reader: Any = self.reader
        buffer: bytearray = reader._buffer
        if len(buffer) < _HEADER_BYTES or not self.started or self.lock.locked() or reader._exception is not None:
            return None
        return buffer

    def _drop(self, buffer: bytearray, end: int) -> None:
        """It is read up to there."""
        del buffer[:end]
        reader: Any = self.reader
        if reader._paused:
            reader._maybe_resume_transport()


def read_frames_from_the_buffer() -> None:
    """Have every connection of this process that is made from now on read its frames so; twice does no harm."""
    aiormq_connection.FrameReceiver = BufferedFrameReceiver  # type: ignore[misc]
