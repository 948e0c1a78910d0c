"""Which relays lead in this process: they are woken by hand, and nobody need notify them.

PostgreSQL lets transactions that notify commit one after the other, each with its write to disk, so that no two
share one. Whoever commits beside the relay that leads is spared that, and the relay the notification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Leading:
    """The relays of one process that lead; there is one for each shard, here or elsewhere.

    A relay that has lost the lead and does not know it yet is woken in vain: then the one that has it finds what
    there is when it looks by itself.
    """

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._wakes: dict[int, Callable[[], None]] = {}

    @property
    def is_here(self) -> bool:
        """Whether all shards' relays lead in this process."""
        return len(self._wakes) == self._shards

    @contextmanager
    def of(self, shard: int, wake: Callable[[], None]) -> Iterator[None]:
        """The relay of `shard`, woken by `wake`, leads inside."""
        self._wakes[shard] = wake
        try:
            yield
        finally:
            del self._wakes[shard]

    def wake(self) -> None:
        """There is something to publish."""
        for wake in self._wakes.values():
            wake()
