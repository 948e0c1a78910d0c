"""A batch on its way through the pipeline: its distinct events, what becomes of each, and of each delivery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shared.broker.base import Delivery
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


@dataclass(slots=True)
class Work:
    """One distinct event of a batch, with every delivery of it."""

    envelope: Envelope
    event: Event[Any]
    handler: Handler
    deliveries: list[Delivery]
    attempt: int = 1
    runs: int = 0
    status: Status | None = None
    error: Exception | None = None
    claims_counted: set[ClaimState] = field(default_factory=set)
    finished: bool = False
    """The dead letter is confirmed, or the claim marked or given back."""


@dataclass(slots=True)
class Batch:
    works: dict[tuple[str, str], Work] = field(default_factory=dict)
    statuses: dict[int, Status] = field(default_factory=dict)  # by `id` of the delivery
    rejected: list[tuple[Delivery, Exception]] = field(default_factory=list)

    def open(self) -> list[Work]:
        return [work for work in self.works.values() if work.status is None]


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
