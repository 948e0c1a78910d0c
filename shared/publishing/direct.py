"""What a service tells its own consumers directly: of a lone event, beside the broker.

A notification of PostgreSQL's, in the statement that writes the event to the outbox, has all its bytes. It is
heard exactly if the transaction is committed, by whoever listens then, and the event is published as ever. A
consumer that takes it up at once (`shared.consuming.direct`) spares it the way through the relay and the broker.
"""

from __future__ import annotations

import time
from collections.abc import Callable

CHANNEL = "tandem_direct"
BYTES_MAX = 7_500
"""PostgreSQL takes less than 8,000, with the event's channel."""
_EVERY_S = 0.01
"""Transactions that notify are committed one after the other. Where events come faster than that, their consumers
are hardly idle."""

# The parameters are those of an outbox row, so the event is sent once.
NOTIFIES = (
    f"pg_notify('{CHANNEL}', cast(:outbox_channel as text) || ' ' ||"
    " convert_from(cast(:outbox_body as bytea), 'UTF8'))"
)


class Directly:
    """Says which events of this process are told directly: one in 10 ms, if it is short enough."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_at = clock()

    def tells(self, body: bytes) -> bool:
        """Whether this event, of an encoding that holds no NUL, is told; then the next is not for a while."""
        now = self._clock()
        if now < self._next_at or len(body) > BYTES_MAX:
            return False
        self._next_at = now + _EVERY_S
        return True


def read_told(payload: str) -> tuple[str, bytes]:
    """The event's channel and its bytes."""
    channel, _, body = payload.partition(" ")
    return channel, body.encode()
