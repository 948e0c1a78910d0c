"""Tells a group how far its consumer has settled, beside what the consumer does next."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError

from shared.broker.kafka.errors import LOST
from shared.broker.kafka.handover import Handover

_log = structlog.get_logger(__name__)

_COMMIT_TIMEOUT_S = 5.0

Offsets = Mapping[TopicPartition, int]


class Commits:
    """One consumer's. One is under way at a time, and until it has ended no partition is handed over."""

    def __init__(self, queue: str, handover: Handover) -> None:
        self._queue = queue
        self._handover = handover
        self._committed: dict[TopicPartition, int] = {}
        """What this member committed since the last rebalance."""
        self._committed_in: int | None = None
        """Which rebalance that was."""
        self._under_way: asyncio.Task[bool] | None = None
        self._starts: Offsets = {}
        self._count = 0
        self.failures = 0
        """How many messages were in those that failed."""

    def missing(self, positions: Offsets) -> dict[TopicPartition, int]:
        """Of these offsets, up to which all is settled, or soon will be, those that nothing says are committed."""
        if self._committed_in != self._handover.rebalances:
            self._committed, self._committed_in = {}, self._handover.rebalances
        if self._committed_in is None:
            return {}
        return {tp: offset for tp, offset in positions.items() if self._committed.get(tp) != offset}

    def begin(self, consumer: Any, offsets: Offsets, starts: Offsets, count: int) -> None:
        """Commit these, when nothing is under way. They settle `count` messages, which begin at `starts`."""
        self._starts, self._count = starts, count
        self._handover.hold()
        self._under_way = asyncio.create_task(self._commit(consumer, offsets), name=f"commit-{self._queue}")
        self._under_way.add_done_callback(lambda _: self._handover.let_go())

    async def ended(self) -> None:
        """Wait until what was begun has ended, and leave to `end` what became of it."""
        if self._under_way is not None:
            await asyncio.wait([self._under_way])

    async def end(self) -> Offsets | None:
        """Wait until what was begun has ended. If it failed: where that begins which it was to settle."""
        commit = self._under_way
        if commit is None:
            return None
        await asyncio.wait([commit])
        self._under_way = None
        if commit.result():
            return None
        self.failures += self._count
        return self._starts

    async def give_up(self) -> None:
        """Leave off."""
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)
            self._under_way = None

    async def _commit(self, consumer: Any, offsets: Offsets) -> bool:
        try:
            async with asyncio.timeout(_COMMIT_TIMEOUT_S):
                await consumer.commit(offsets)
        except (*LOST, IllegalStateError) as error:
            _log.warning("kafka.settlement_failed", queue=self._queue, error=repr(error))
            return False
        self._committed |= offsets
        return True
