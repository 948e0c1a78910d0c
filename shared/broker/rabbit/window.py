"""What a consumer holds of a queue: bounded in number by the prefetch, and in bytes by itself.

RabbitMQ's prefetch counts messages, whatever their size, and what was sent is in the memory of the process. So of
what arrives when enough is held only the place is kept: the body is let go, and the message stays unsettled. When
there is room it is given back, and the broker sends it again, before what has not been delivered yet. That adds
one to the broker's count of its deliveries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Any

from shared.broker.rabbit.arriving import Arrived

_PATIENCE_S = 10.0
_PATIENCE_WITH_OTHERS_S = 0.5
_MESSAGE_BYTES = 2_048
"""What the clients' objects take for each, about."""


@dataclass(slots=True)
class Held:
    """A message, and what it takes in memory."""

    raw: Arrived
    channel: Any
    tag: int
    weight: int
    arrived_s: float = field(default_factory=monotonic)

    @classmethod
    def of(cls, raw: Arrived) -> Held:
        """As it has arrived."""
        weight = len(raw.body) + _MESSAGE_BYTES
        if raw.headers:
            weight += sum(
                len(name) + len(value) for name, value in raw.headers.items() if isinstance(value, str | bytes)
            )
        return cls(raw, raw.channel, raw.delivery_tag or 0, weight)

    @property
    def stale(self) -> bool:
        """Its channel is gone, so the broker has put it back in the queue."""
        return bool(self.channel.is_closed)


@dataclass(slots=True)
class LetGo:
    """The place of a message whose body was let go."""

    tag: int
    channel: Any
    weight: int
    identity: int
    """Of equal bodies, which are as good as each other."""

    @property
    def stale(self) -> bool:
        return bool(self.channel.is_closed)


class Window:
    """The unsettled messages of one queue, in the order in which they are to be handed over.

    `ordered`: the queue has no other active consumer, so that what is given back comes back here, and what arrives
    meanwhile is behind it.
    """

    def __init__(self, bytes_max: int, *, ordered: bool) -> None:
        self._bytes_max = bytes_max
        self._ordered = ordered
        self.patience_s = _PATIENCE_S if ordered else _PATIENCE_WITH_OTHERS_S
        """How long to wait for what was given back before it is forgotten: others may have got it; but if nobody
        else consumes, and it was only slow, it would come out of order."""
        self._waiting: deque[Held] = deque()
        self._in_hand: list[Held] = []
        self._ahead: list[Held] = []
        self._let_go: deque[LetGo] = deque()
        self._recalled: deque[LetGo] = deque()
        """Given back, and not arrived again yet."""
        self._weight = 0

    def arrive(self, held: Held) -> None:
        """Keep the message, or only its place."""
        if not self.incomplete and self._weight < self._bytes_max:  # nearly always
            self._keep(held)
            return
        self._drop_stale()
        if self._recalled and self._came_back(hash(held.raw.body)):
            self._keep(held)
        elif self._full() or (self._ordered and self.incomplete):
            self._let_go.append(LetGo(held.tag, held.channel, held.weight, hash(held.raw.body)))
        else:
            self._keep(held)

    def take(self, count_max: int) -> list[Held]:
        """Take the next ones in hand, until `settled`."""
        self._drop_stale()
        while self._waiting and len(self._in_hand) < count_max:
            self._in_hand.append(self._waiting.popleft())
        return list(self._in_hand)

    def take_ahead(self, count_max: int) -> list[Held]:
        """Take what comes behind that, which is in hand when it is settled."""
        while self._waiting and len(self._ahead) < count_max:
            self._ahead.append(self._waiting.popleft())
        return list(self._ahead)

    def put_back(self) -> None:
        """What was taken ahead waits again, before everything else."""
        self._waiting.extendleft(reversed(self._ahead))
        self._ahead = []

    def settled(self, kept: Sequence[Held]) -> None:
        """What was in hand is settled, but for `kept`, which comes before everything else again."""
        if kept:
            self.put_back()
            self._waiting.extendleft(reversed(kept))
        self._in_hand, self._ahead = self._ahead, []
        self._weight = sum(held.weight for held in (*self._in_hand, *self._waiting))

    def recall(self) -> list[LetGo]:
        """What to give back now, in this order: as much as there is room for."""
        self._drop_stale()
        recalled: list[LetGo] = []
        while self._let_go and not self._full():
            place = self._let_go.popleft()
            self._recalled.append(place)
            recalled.append(place)
        return recalled

    def forget_recalled(self) -> None:
        """What was given back and has not arrived is gone: its time was over, or somebody emptied the queue."""
        self._recalled.clear()

    @property
    def incomplete(self) -> bool:
        """Something is here of which only the place was kept, or is on its way back."""
        return bool(self._let_go or self._recalled)

    @property
    def taken_ahead(self) -> int:
        """How many are behind those in hand, and taken."""
        return len(self._ahead)

    @property
    def waiting(self) -> int:
        """How many may be taken."""
        return len(self._waiting)

    def unsettled(self) -> list[Held | LetGo]:
        """All that the broker waits for an answer to."""
        everything: tuple[Held | LetGo, ...] = (*self._in_hand, *self._ahead, *self._waiting, *self._let_go)
        return [held for held in everything if not held.stale]

    def lowest_tag(self, channel: Any) -> float:
        """Of what came by the channel and is not in hand; infinite if there is nothing."""
        others: tuple[Held | LetGo, ...] = (*self._ahead, *self._waiting, *self._let_go)
        return min((held.tag for held in others if held.channel is channel), default=inf)

    def clear(self) -> None:
        self._waiting.clear()
        self._in_hand = []
        self._ahead = []
        self._let_go.clear()
        self._recalled.clear()
        self._weight = 0

    def _keep(self, held: Held) -> None:
        self._waiting.append(held)
        self._weight += held.weight

    def _full(self) -> bool:
        """What is on its way back has its room already."""
        return self._weight + sum(place.weight for place in self._recalled) >= self._bytes_max

    def _came_back(self, identity: int) -> bool:
        """Whether it is one that was given back. In order, those before it are gone then."""
        for index, place in enumerate(self._recalled):
            if place.identity == identity:
                del self._recalled[index]
                for _ in range(index if self._ordered else 0):
                    self._recalled.popleft()
                return True
        return False

    def _drop_stale(self) -> None:
        """The broker has put all of a closed channel back in the queue; what came by it is the oldest."""
        parts: tuple[deque[Held] | deque[LetGo], ...] = (self._waiting, self._let_go, self._recalled)
        if any(part and part[0].stale for part in parts):
            self._waiting = deque(held for held in self._waiting if not held.stale)
            self._let_go = deque(place for place in self._let_go if not place.stale)
            self._recalled = deque(place for place in self._recalled if not place.stale)
            self._weight = sum(held.weight for held in (*self._in_hand, *self._ahead, *self._waiting))
