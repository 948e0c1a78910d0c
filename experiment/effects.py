"""Reads what really happened from the services' databases: effects, outboxes, versions, letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from experiment.checker import Effect, State
from experiment.ledger import Entry, Identity, Outcome
from shared.envelope import Envelope
from shared.errors import UndecodableError

SUBSCRIBER = "notification"
"""The subscriber whose effects are counted: a row in its service's table `notification` for every event. Those of
transfers are counted by `faults.transfers`."""
CONSUMER = "notification-consumer"
"""The process in which it runs."""
_TIMEOUT_S = 60.0

# The row's transaction says when it was committed, to the microsecond (track_commit_timestamp = on).
_EFFECTS = """
select sequence, event_source || ' ' || event_id, event_type, coalesce(order_id, user_id)::text as key, version,
       extract(epoch from pg_xact_commit_timestamp(xmin))::float8 as committed_s
  from notification
 where sequence > $1 and split_part(event_type, '.', 1) in ('order', 'user')
 order by sequence
"""
_LOCATIONS = "select key, location from idempotency_key where key = any($1::text[])"


class Databases:
    """Connections to one set's databases; use as an async context manager."""

    def __init__(self, dsn_by_service: dict[str, str]) -> None:
        self._dsns = dsn_by_service
        self._connections: dict[str, asyncpg.Connection[Any]] = {}

    async def __aenter__(self) -> Databases:
        await self.connect()
        return self

    async def connect(self) -> None:
        """Connect, or connect anew after the server was restarted."""
        for connection in self._connections.values():
            connection.terminate()
        for service, dsn in self._dsns.items():
            self._connections[service] = await asyncpg.connect(
                dsn,
                timeout=_TIMEOUT_S,
                command_timeout=_TIMEOUT_S,
                server_settings={"application_name": "compare"},
            )

    async def __aexit__(self, *exc_info: object) -> None:
        for connection in self._connections.values():
            connection.terminate()

    async def rows(self, service: str, statement: str, *parameters: object) -> Sequence[Any]:
        """Rows of a service's database."""
        rows: Sequence[Any] = await self._connections[service].fetch(statement, *parameters)
        return rows

    async def execute(self, service: str, statement: str) -> None:
        """Run a statement there that has no rows."""
        await self._connections[service].execute(statement)

    async def tidy(self) -> None:
        """Vacuum, analyse and checkpoint now: by itself the server would do so beside whatever comes next."""
        for connection in self._connections.values():
            await connection.execute("vacuum (analyze)")
        await self.execute(SUBSCRIBER, "checkpoint")

    async def effects(self, after_position: int = 0) -> list[Effect]:
        """All effects recorded after a position, in the order in which they were recorded."""
        rows = await self._connections["notification"].fetch(_EFFECTS, after_position)
        return [Effect(*row) for row in rows]

    async def last_effect_position(self) -> int:
        return int(
            await self._connections["notification"].fetchval("select coalesce(max(sequence), 0) from notification")
        )

    async def effect_count(self, after_position: int) -> int:
        statement = """
            select count(*) from notification
             where sequence > $1 and split_part(event_type, '.', 1) in ('order', 'user')
            """
        return int(await self._connections["notification"].fetchval(statement, after_position))

    async def known_user_count(self) -> int:
        return int(await self._connections["order"].fetchval("select count(*) from known_user"))

    async def outbox_ends(self, service: str = "order") -> tuple[int, int] | None:
        """First and last position in a service's outbox; None when it is empty."""
        first = "select position from outbox order by position limit 1"
        last = "select position from outbox order by position desc limit 1"
        row = await self._connections[service].fetchrow(f"select ({first}), ({last})")
        return None if row is None or row[0] is None else (row[0], row[1])

    async def outbox_identities(self) -> set[Identity]:
        """The events that wait in the outboxes."""
        found: set[Identity] = set()
        for service in ("user", "order"):
            rows = await self._connections[service].fetch("select body from outbox")
            found |= identities([row["body"] for row in rows])
        return found

    async def kept_identities(self) -> set[Identity]:
        """The events that the dead-letter service keeps, and that have not taken effect since; none where it does
        not run."""
        statement = "select body from dead_letter where state <> 'resolved'"
        return identities([row["body"] for row in await self._connections["dead_letter"].fetch(statement)])

    async def state(self) -> State:
        """What the tables say besides the effects."""
        owned = [
            ("order", "select id::text, version from orders"),
            ("user", "select id::text, version from users"),
        ]
        versions: dict[str, int] = {}
        for service, statement in owned:
            versions.update(await self._connections[service].fetch(statement))
        copies = await self._connections["order"].fetch("select user_id::text, version from known_user")
        return State(versions, dict(copies), await self._failed_identities())

    async def _failed_identities(self) -> set[Identity]:
        """The events that the subscriber could not take, and that nobody has given back or discarded since."""
        statement = """
            select body from dead_letter
             where subscriber = 'notification' and kind = 'failed' and state in ('pending', 'redriven', 'parked')
            """
        return identities([row["body"] for row in await self._connections["dead_letter"].fetch(statement)])

    async def drop_unique_constraint(self) -> None:
        """Take from the table of effects what would refuse a second one: the inbox alone is to keep them single,
        and where it does not, it shows."""
        connection = self._connections["notification"]
        name = await connection.fetchval(
            "select conname from pg_constraint where conrelid = 'notification'::regclass and contype = 'u'"
        )
        if name:
            await connection.execute(f'alter table notification drop constraint "{name}"')

    async def resolve(self, entries: Sequence[Entry]) -> None:
        """Find out which order or user an unanswered request became, by its idempotency key.

        The key is stored in the transaction that did the work: no key, no event.
        """
        for service, event_type in (("order", "order.placed"), ("user", "user.registered")):
            open_entries = {
                str(entry.idempotency_key): entry
                for entry in entries
                if entry.outcome is Outcome.INDETERMINATE and entry.key is None and entry.event_type == event_type
            }
            for row in await self._connections[service].fetch(_LOCATIONS, list(open_entries)):
                entry = open_entries[row["key"]]
                entry.key, entry.sequence = row["location"].rsplit("/", 1)[1], 1


def identities(bodies: Sequence[bytes]) -> set[Identity]:
    """The identities of events in their wire format; what is no event of ours is left out."""
    found: set[Identity] = set()
    for body in bodies:
        try:
            event = Envelope.decode(body)
        except UndecodableError:
            continue
        if isinstance(event.data, dict) and isinstance(event.data.get("version"), int):
            found.add((event.type, str(event.subject), event.data["version"]))
    return found
