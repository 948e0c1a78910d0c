"""A batch on its way through the pipeline: its distinct events, what becomes of each, and of each delivery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from shared.broker import Delivery
from shared.consuming.begun import Begun
from shared.consuming.claims import ClaimState
from shared.consuming.subscriber import Handler
from shared.envelope import Envelope
from shared.errors import UnavailableError
from shared.event import Event


class Status(StrEnum):
    """What became of a delivery; the `tandem.status` of the metrics."""

    DONE = "done"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    DEAD_LETTERED = "dead_lettered"
    DELAYED = "delayed"
    RETRIED = "retried"


RECORDED = (Status.DONE, Status.DUPLICATE)
"""The effect is in the database, from this delivery or an earlier one."""
PUT_ASIDE = (Status.DEAD_LETTERED, Status.DELAYED)
"""Bound for the dead-letter place, or there already."""


class Work(msgspec.Struct, eq=False):
    """One distinct event of a batch, with every delivery of it; a struct, since one is made for each."""

    envelope: Envelope
    event: Event[Any]
    handler: Handler
    deliveries: list[Delivery]
    attempt: int = 1
    """How often the event was taken up, this time included, without being finished or given back."""
    runs: int = 0
    """How often its handler was called here."""
    status: Status | None = None
    """None while it is open."""
    error: Exception | None = None
    claims_counted: frozenset[ClaimState] = frozenset()
    begun: Begun | None = None
    """Its transaction, where that was begun beside its claim."""
    finished: bool = False
    """The dead letter is confirmed, or the claim marked or given back."""

    @property
    def is_claimed(self) -> bool:
        """Whether it was claimed here: without Redis it is not."""
        return ClaimState.NEW in self.claims_counted

    @property
    def seems_new(self) -> bool:
        """Whether nothing says that it was here before, in this process or another."""
        first_time = self.runs == 0 and self.attempt == 1 and not self.deliveries[0].redelivered
        return first_time and self.status is None


@dataclass(slots=True)
class Batch:
    """Deliveries in broker order, and everything that the stages find out about them."""

    deliveries: Sequence[Delivery]
    works: dict[tuple[str, str], Work] = field(default_factory=dict)
    """By source and id, in the order of their first deliveries."""
    statuses: dict[int, Status] = field(default_factory=dict)
    """By `id()` of the delivery."""
    rejected: list[tuple[Delivery, Exception]] = field(default_factory=list)
    """What could not be read, and why."""
    all_done: bool = False
    """It is closed, and each delivery is an event of its own that has its effect: nearly always."""

    def open(self) -> list[Work]:
        """The events that nothing is decided about yet."""
        return [work for work in self.works.values() if work.status is None]

    def has_suspects(self) -> bool:
        """Whether an open event was in the hands of a process that did not finish it: it may have died of it."""
        return any(work.attempt > 1 and work.status is None for work in self.works.values())

    def lone(self) -> Work | None:
        """The event of a batch of one delivery; none where it has no event, or none that anybody wants."""
        return next(iter(self.works.values()), None) if len(self.deliveries) == 1 else None

    async def roll_back(self) -> None:
        """Undo what was begun beside the claim of a lone event, if its effect did not come to it."""
        lone = self.lone()
        if lone is not None and lone.begun is not None:
            await lone.begun.roll_back()

    def close(self) -> None:
        """Give every delivery of an event its status: the first the event's own, the others are duplicates of it.

        An event that nothing was decided about is retried. Where all is done, none is given one.
        """
        works = self.works.values()
        statuses = [work.status for work in works]
        self.all_done = len(works) == len(self.deliveries) and statuses.count(Status.DONE) == len(works)
        if self.all_done:
            return
        for work in works:
            self.statuses[id(work.deliveries[0])] = work.status or Status.RETRIED
            for again in work.deliveries[1:]:
                retried = work.status is Status.RETRIED
                self.statuses[id(again)] = Status.RETRIED if retried else Status.DUPLICATE

    def outcome(self) -> list[Status]:
        """What became of each delivery, in their order. Only of a closed batch."""
        if self.all_done and not self.statuses:  # nearly always
            return [Status.DONE] * len(self.deliveries)
        if self.all_done:
            return [self.statuses.get(id(delivery), Status.DONE) for delivery in self.deliveries]
        return [self.statuses[id(delivery)] for delivery in self.deliveries]


def retry_later(works: Sequence[Work], error: UnavailableError) -> None:
    """A server is away: all of `works` go back to the broker."""
    for work in works:
        work.status, work.error = Status.RETRIED, error


def retry_with_followers(held: Sequence[Work], works: Sequence[Work]) -> None:
    """Retry `held`, and with them what comes after them in `works` under the same key, so that order is kept."""
    keys: set[str] = set()
    for work in works:
        if any(work is one for one in held) or (work.status is None and work.envelope.key in keys):
            work.status = Status.RETRIED
            keys.add(work.envelope.key)
