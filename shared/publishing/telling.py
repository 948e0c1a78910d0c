"""How the relays hear of what one unit of work publishes: a notification, a ring, or the rows themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Executable

from shared.publishing.leading import Leading, Offer
from shared.publishing.outbox import Asks, add_events
from shared.publishing.told import Statement


class TellsRelays:
    """Of one unit of work, from the statement that publishes until it is committed."""

    def __init__(self, leading: Leading | None) -> None:
        """`leading` knows which relays lead in this process, where some may."""
        self._leading = leading
        self._rings = False
        self._offer: Offer | None = None
        self._places: Sequence[int] | None = None

    def add_events(
        self, statements: list[Statement], rows: Sequence[Mapping[str, Any]], *, last: bool
    ) -> Executable | None:
        """Have these outbox rows inserted behind all of `statements`; return the one whose answer is wanted.

        They are offered to the relays only if they are all that the unit publishes, and are written by its `last`
        flush: what was written before may have been taken back, to a savepoint.
        """
        if self._leading is None or not self._leading.is_here:
            add_events(statements, rows, Asks.NOTIFIES)
            return None
        self._offer = self._leading.offer(rows) if last and not self._rings else None
        self._rings = True
        says_places = add_events(statements, rows, Asks.PLACES if self._offer else Asks.NOTHING)
        return statements[-1][0] if says_places else None

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
