"""Gives partitions to other members of the group in good order."""

from __future__ import annotations

import asyncio
import contextlib

from aiokafka import ConsumerRebalanceListener, TopicPartition


class Handover(ConsumerRebalanceListener):  # type: ignore[misc]
    """Gives partitions away only when nothing holds them: what is in hand is settled, and the group has been told,
    so that no other consumer repeats it."""

    def __init__(self, wait_max_s: float) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._holds = 0
        self.rebalances: int | None = None
        """How many there were; None during one, when nothing may be taken up."""
        self._count = 0
        self._wait_max_s = wait_max_s

    def hold(self) -> None:
        """Give nothing away until `let_go`; as many times as it is called."""
        self._holds += 1
        self.idle.clear()

    def let_go(self) -> None:
        self._holds -= 1
        if not self._holds:
            self.idle.set()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.rebalances = None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.idle.wait(), self._wait_max_s)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._count += 1
        self.rebalances = self._count
