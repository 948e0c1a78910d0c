"""How the relays hear of what one unit of work publishes: a notification, a ring, or the rows themselves; and who
else hears of it (`shared.publishing.direct`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.publishing.direct import Directly
from shared.publishing.leading import Leading, Offer
from shared.publishing.outbox import Asks, add_events
from shared.publishing.told import Statement


class TellsRelays:
    """Of one unit of work, from the statement that publishes until it is committed."""

    def __init__(self, leading: Leading | None, directly: Directly | None = None) -> None:
        """`leading` knows which relays lead in this process, where some may; `directly` says what consumers are
        told besides."""
        self._leading = leading
        self._directly = directly
        self._writes = False
        self._rings = False
        self._offer: Offer | None = None
        self._places: Sequence[int] | None = None

    def add_events(
        self,
        statements: list[Statement],
        rows: Sequence[Mapping[str, Any]],
        *,
        last: bool,
        told: Mapping[str, Any] | None = None,
    ) -> bool:
        """Have these outbox rows inserted behind all of `statements`; return whether the last's answer is wanted.
        `told` is a row of which consumers may hear directly.

        They are offered to the relays only if they are all that the unit publishes, and are written by its `last`
        flush: what was written before may have been taken back, to a savepoint.
        """
        if not rows:
            return False
        directly = last and not self._writes and self._is_told(rows, told)
        self._writes = True
        if self._leading is None or not self._leading.is_here:
            add_events(statements, rows, Asks.NOTIFIES, directly=directly)
            return False
        self._offer = self._leading.offer(rows) if last and not self._rings else None
        self._rings = True
        asks = Asks.PLACES if self._offer else Asks.NOTHING
        return add_events(statements, rows, asks, directly=directly)

    def _is_told(self, rows: Sequence[Mapping[str, Any]], told: Mapping[str, Any] | None) -> bool:
        """Whether this row is all that there is, and consumers hear of it directly."""
        lone = len(rows) == 1 and rows[0] is told
        return lone and self._directly is not None and self._directly.tells(rows[0]["body"])

    def answered(self, rows: Sequence[Any]) -> None:
        """What that statement returned."""
        self._places = rows[0][-1] if rows else None

    def committed(self) -> None:
        """Tell the relays in this process."""
        if self._leading is None or not self._rings:
            return
        if self._offer is not None and self._places is not None:
            self._leading.hand_over(self._offer, self._places)
        else:
            self._leading.ring()
