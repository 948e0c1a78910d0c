"""What tells a worker that there may be steps to take, and where it has to look."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

from shared.jobs.attempt import Lane


class Bell:
    """Rings for the lanes that are to be looked at: at first for all."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._wanted = set(lanes)
        self._left: set[Lane] = set()
        self._only: dict[Lane, UUID] = {}
        """Of lanes that are wanted for one step, that step."""
        self._rung = asyncio.Event()
        self._rung.set()

    def ring(self, handler: str = "", step: UUID | None = None) -> None:
        """For the lane of this handler, where it is one of ours, or for all; of one step, if it is no more."""
        for lane in self._lanes:
            if not handler or handler in lane.handlers:
                if step is None or lane in self._wanted or lane.limits:
                    self._only.pop(lane, None)
                else:
                    self._only[lane] = step
                self._wanted.add(lane)
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

    async def heard(self, timeout_s: float) -> Mapping[Lane, UUID | None]:
        """Wait until it rings; the lanes that it has rung for by then, and all when it is silent for so long.

        With each, the only step that there is to take, where that is known: nothing was left when the lane was
        looked at before, nor has it limits, and of this one step it has rung since.
        """
        try:
            await asyncio.wait_for(self._rung.wait(), timeout_s)
        except TimeoutError:
            self.ring()
        self._rung.clear()
        lanes = {
            lane: None if lane in self._left else self._only.get(lane)
            for lane in self._lanes
            if lane in self._wanted
        }
        self._wanted.clear()
        self._only.clear()
        return lanes
