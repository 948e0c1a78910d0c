"""Which bindings the server may have without routing by them, so that they are to be made anew.

While it deletes an exchange RabbitMQ 4.3 takes bindings to one that somebody declares again at once, has them from
then on, and routes nothing by them: so ended 4 of 10 deletions during which four were made one after the other. To
bind again changes nothing, since the binding is there, and a process that starts is no better off. To unbind first
helps.

Unbinding costs its queue what is published until it is bound again, if the binding was a good one. So that is done
for two reasons alone: a dead letter came back that it should have taken, and then nothing is routed by it; or
something of ours was gone, and then events were lost already.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_DELETED_S = 1.0
"""By then a server that deletes has done so, whatever else is deleted with what was gone."""

Anew = Callable[[str, str], bool]
"""Whether what is bound to this exchange by this routing key is to be bound anew."""


class Doubts:
    """What was seen since the bindings were looked after."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._returned: set[tuple[str, str]] = set()
        self._gone_at: float | None = None

    def returned(self, exchange: str, routing_key: str) -> None:
        """A message came back although this is bound."""
        self._returned.add((exchange, routing_key))

    def gone(self) -> None:
        """An exchange or a queue was not there."""
        self._gone_at = self._clock()

    def take(self) -> Anew:
        """What to do now; whoever asks does it."""
        returned, self._returned = self._returned, set()
        everything = self._gone_at is not None and self._clock() - self._gone_at >= _DELETED_S
        if everything:
            self._gone_at = None
        return lambda exchange, routing_key: everything or (exchange, routing_key) in returned
