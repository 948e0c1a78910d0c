"""Transactional Outbox: events wait here, in the transaction that changed the state, until the relay sent them.

Rows hold the final wire bytes, so that what is published is what was committed. Confirmed rows are deleted:
the table's length is the backlog. The relay is woken by `NOTIFY tandem_outbox` in the same transaction, or, where
it leads in the same process, told by whoever commits (`shared.publishing.leading`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from uuid import UUID
from zlib import crc32

from sqlalchemy import (
    BigInteger,
    Column,
    Executable,
    Identity,
    Insert,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TextClause,
    insert,
    literal_column,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database import Database
from shared.publishing import direct
from shared.publishing.told import Statement, runs_once
from shared.telemetry import Ask, Sample

NOTIFY_CHANNEL = "tandem_outbox"
VIRTUAL_SHARDS = 16
"""Keys are spread over this many shards for good; a relay serves a whole number of them. A constant, because
changing it while rows wait would break the order per key."""

metadata = MetaData()

outbox = Table(
    "outbox",
    metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("shard", SmallInteger, nullable=False),
    Column("channel", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("traceparent", Text),
    Column("body", LargeBinary, nullable=False),
)

insert_outbox = insert(outbox)


class Asks(StrEnum):
    """What the statement that inserts events does for the relay."""

    NOTIFIES = "notifies"
    """The relay hears of it once it is committed."""
    NOTHING = "nothing"
    """Who commits tells the relay."""
    PLACES = "places"
    """It says at which places the events are, if nothing that waits can come before them: a list, or none."""


_PARAMETERS = {column.name: f"outbox_{column.name}" for column in outbox.columns}
_NOTIFIES_RELAYS = f"pg_notify('{NOTIFY_CHANNEL}', '')"
_PUBLISH = """
    insert into outbox (shard, channel, type, key, event_id, traceparent, body)
    select told.* from {notified} {rows} as told
"""
_ONE = """(values (cast(:outbox_shard as smallint), cast(:outbox_channel as text), cast(:outbox_type as text),
                  cast(:outbox_key as text), cast(:outbox_event_id as text), cast(:outbox_traceparent as text),
                  cast(:outbox_body as bytea)))"""
_SEVERAL = """unnest(cast(:outbox_shard as smallint[]), cast(:outbox_channel as text[]),
                  cast(:outbox_type as text[]), cast(:outbox_key as text[]), cast(:outbox_event_id as text[]),
                  cast(:outbox_traceparent as text[]), cast(:outbox_body as bytea[]))"""
"""For one, as nearly every request has it, that costs PostgreSQL and the driver some 6 µs more each."""
_AND_SAY = """
    returning position, (
        select count(*) < 32 and not coalesce(bool_or({is_key}), false)
          from (select key from outbox order by position limit 32) as waiting
    ) as is_first
"""
"""Those of the lowest places are looked at. What was committed before the statement began is seen, and nothing of
the statement itself; see `shared.publishing.doorbell` for what follows from it."""
_PLACES = "(select array_agg(position order by position) from published where is_first)"
_WITH = "with "


@lru_cache(maxsize=3 * len(Asks))
def publishing(asks: Asks, *, one: bool, directly: bool = False) -> TextClause:
    """The statement that inserts `one` event, whose columns are the parameters; or several, an array of each.

    One may be told to consumers `directly`.
    """
    inserting = _inserting(asks, one=one, directly=directly)
    return text(f"with published as ({inserting}) select {_PLACES}" if asks is Asks.PLACES else inserting)


def _inserting(asks: Asks, *, one: bool, directly: bool) -> str:
    notifies = [_NOTIFIES_RELAYS] * (asks is Asks.NOTIFIES) + [direct.NOTIFIES] * directly
    notified = f"(select {', '.join(notifies)}) as notified," if notifies else ""
    inserting = _PUBLISH.format(notified=notified, rows=_ONE if one else _SEVERAL)
    if asks is not Asks.PLACES:
        return inserting
    is_key = "key = cast(:outbox_key as text)" if one else "key = any(cast(:outbox_key as text[]))"
    return inserting + _AND_SAY.format(is_key=is_key)


@lru_cache(maxsize=512)
def publishing_beside(
    statement: Executable, asks: Asks, *, one: bool, directly: bool = False
) -> Executable | None:
    """The statement that does the same and what `publishing` does, in one round trip; None where there is none.

    There is for plain inserts, and for texts that begin with `with`, except that these say no places: both are the
    writer's own. What a statement locks first may have been another's, whose events have the places before; an
    update is not one of these, so that this does not hang on which part of a statement PostgreSQL runs first.
    """
    if type(statement) is Insert:
        inserting = text(_inserting(asks, one=one, directly=directly))
        both = statement.add_cte(inserting.columns().cte("published"))
        return both.returning(literal_column(_PLACES)) if asks is Asks.PLACES else both
    if isinstance(statement, TextClause) and (written := statement.text.lstrip()).startswith(_WITH):
        asks = Asks.NOTHING if asks is Asks.PLACES else asks
        inserting_text = _inserting(asks, one=one, directly=directly)
        return text(f"with published as ({inserting_text}), {written.removeprefix(_WITH)}")
    return None


def add_events(
    statements: list[Statement], rows: Sequence[Mapping[str, object]], asks: Asks, *, directly: bool = False
) -> bool:
    """Have these outbox rows inserted behind all of `statements`: by the last of them, if it can. Return whether
    the last says their places. One that is alone may be told to consumers `directly`."""
    one = len(rows) == 1
    if one:
        events = {_PARAMETERS[name]: value for name, value in rows[0].items()}
    else:
        events = {_PARAMETERS[name]: [row[name] for row in rows] for name in rows[0]}
    if statements:
        last, parameters = statements[-1]
        both = publishing_beside(last, asks, one=one, directly=directly)
        if both is not None and runs_once(parameters):
            statements[-1] = (both, {**parameters, **events})
            return asks is Asks.PLACES and isinstance(both, Insert)
    statements.append((publishing(asks, one=one, directly=directly), events))
    return asks is Asks.PLACES


def shard_of(key: str) -> int:
    """The shard of a key: 0 to 15, the same in every process and version."""
    return crc32(key.encode()) % VIRTUAL_SHARDS


_STATE = text(
    """
    select (select count(*) from (select from outbox limit :count_max) as counted) as messages,
           (select event_id from outbox order by position limit 1) as oldest
    """
)


@dataclass(frozen=True, slots=True)
class OutboxState:
    """How far the relay is behind: `messages` wait, the first for `oldest_age_s` (0 when none waits)."""

    messages: int
    oldest_age_s: float


async def outbox_state(connection: AsyncConnection, count_max: int) -> OutboxState:
    """Ask how far the relay is behind; it counts at most `count_max` rows, however long the outbox is."""
    row = (await connection.execute(_STATE, {"count_max": count_max})).one()
    return OutboxState(row.messages, 0.0 if row.oldest is None else _age_s(row.oldest))


def _age_s(event_id: str) -> float:
    """Read the age from the time in a UUID of version 7 (RFC 9562), as our events have it: no column, no index."""
    created = UUID(event_id)
    return max(0.0, time.time() - (created.int >> 80) / 1_000)


_OUTBOX_COUNT_MAX = 1_000_000


def outbox_of(database: Database) -> dict[str, Ask]:
    """The gauges' question to the outbox: how much waits in it, and for how long."""

    async def ask() -> list[Sample]:
        async with database.statement() as connection:
            state = await outbox_state(connection, _OUTBOX_COUNT_MAX)
        return [
            Sample("tandem.outbox.messages", state.messages),
            Sample("tandem.outbox.oldest.age", state.oldest_age_s),
        ]

    return {"outbox": ask}
