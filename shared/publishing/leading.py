"""Which relays lead in this process: they are told by hand, and nobody need notify them.

PostgreSQL lets transactions that notify commit one after the other, each with its write to disk, so that no two
share one. Whoever commits beside the relay that leads is spared that, and the relay the notification; and, where
it stands by, the look (`shared.publishing.doorbell`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from shared.publishing.doorbell import BYTES_MAX, ROWS_MAX, Doorbell, Row


class Offer:
    """Rows that are about to be written, and will be handed over if nothing comes between."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], tickets: Mapping[int, int]) -> None:
        self.rows = rows
        self.tickets = tickets
        """The ticket of each shard that they are of."""


class Leading:
    """The relays of one process that lead; there is one for each shard, here or elsewhere.

    A relay that has lost the lead and does not know it yet is rung for in vain: then the one that has it finds
    what there is when it looks by itself. What it is handed it publishes, and so does the other, as with a batch
    that is under way when the lead is lost.
    """

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._doorbells: dict[int, Doorbell] = {}

    @property
    def is_here(self) -> bool:
        """Whether all shards' relays lead in this process."""
        return len(self._doorbells) == self._shards

    @contextmanager
    def of(self, shard: int, doorbell: Doorbell) -> Iterator[None]:
        """The relay of `shard`, which hears `doorbell`, leads inside."""
        self._doorbells[shard] = doorbell
        try:
            yield
        finally:
            del self._doorbells[shard]

    def ring(self) -> None:
        """There is something to publish."""
        for doorbell in self._doorbells.values():
            doorbell.ring()

    def offer(self, rows: Sequence[Mapping[str, Any]]) -> Offer | None:
        """Before these rows of the outbox are written: what to hand over when they are committed. None where the
        relays had better look: they are at work, or it is too much."""
        if len(rows) > ROWS_MAX:
            return None
        tickets: dict[int, int] = {}
        for row in rows:  # where requests come thick and fast no relay stands by: that is seen at the first
            shard = row["shard"] % self._shards
            doorbell = self._doorbells.get(shard)
            ticket = None if doorbell is None else doorbell.ticket()
            if ticket is None:
                return None
            tickets[shard] = ticket
        return Offer(rows, tickets) if sum(len(row["body"]) for row in rows) <= BYTES_MAX else None

    def hand_over(self, offer: Offer, positions: Sequence[int]) -> None:
        """The rows offered are committed, at these places, and nothing of their keys waits before them."""
        written: list[Row] = [
            {**row, "position": position} for row, position in zip(offer.rows, positions, strict=True)
        ]
        for shard, ticket in offer.tickets.items():
            if shard in self._doorbells:
                of_shard = [row for row in written if row["shard"] % self._shards == shard]
                self._doorbells[shard].hand_over(ticket, of_shard)
