"""What tells a worker that there may be steps to take, and where it has to look."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shared.jobs.attempt import Lane


class Bell:
    """Rings for the lanes that are to be looked at: at first for all."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._wanted = set(lanes)
        self._left: set[Lane] = set()
        self._rung = asyncio.Event()
        self._rung.set()

    def ring(self, handler: str = "") -> None:
        """For the lane of this handler, where it is one of ours, or for all."""
        self._wanted.update(lane for lane in self._lanes if not handler or handler in lane.handlers)
        if self._wanted:
            self._rung.set()

    def looked(self, lane: Lane, *, is_empty: bool) -> None:
        """A lane was looked at, or not for want of room: whether nothing was left in it."""
        (self._left.discard if is_empty else self._left.add)(lane)

    def ring_for_room(self) -> None:
        """There is room for another step: for the lanes that were not found empty. Who fills one rings, too."""
        self._wanted |= self._left
        if self._wanted:
            self._rung.set()

    async def heard(self, timeout_s: float) -> list[Lane]:
        """Wait until it rings; the lanes that it has rung for by then, and all when it is silent for so long."""
        try:
            await asyncio.wait_for(self._rung.wait(), timeout_s)
        except TimeoutError:
            self.ring()
        self._rung.clear()
        lanes = [lane for lane in self._lanes if lane in self._wanted]
        self._wanted.clear()
        return lanes
