"""What the answers of one connection are written to: the head of each waits for the body that follows at once.

uvicorn writes the two apart, and uvloop sends what is written at once: two system calls and two segments for an
answer, and a client that wakes up twice.
"""

from __future__ import annotations

import asyncio
from typing import Final

_JOINED_BYTES_MAX: Final = 65_536
"""A larger body is not copied behind its head."""


class Answers:
    """Stands for the transport of a connection while answers are written, one after the other.

    The first that is written of an answer waits for the second, or for the end of this turn of the event loop: the
    head of a stream does not wait for what it is about.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.is_closing = transport.is_closing
        self._transport = transport
        self._loop = loop
        self._begun = False
        self._waiting = b""
        self._turn: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        """Send it, with what waits before it."""
        if self._turn is not None:
            if len(data) <= _JOINED_BYTES_MAX:
                self._waiting += data
                self.flush()
            else:
                self.flush()
                self._transport.write(data)
        elif self._begun:
            self._transport.write(data)
        else:
            self._begun = True
            self._waiting = data
            self._turn = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what waits."""
        if self._turn is None:
            return
        self._turn.cancel()
        self._turn = None
        if not self._transport.is_closing():
            self._transport.write(self._waiting)

    def end_answer(self) -> None:
        """Send what waits; the next that is written is the head of another answer."""
        self.flush()
        self._begun = False

    def close(self) -> None:
        """Send what waits, and close."""
        self.flush()
        self._transport.close()
