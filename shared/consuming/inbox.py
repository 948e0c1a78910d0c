"""The inbox (Idempotent Receiver): `(subscriber, source, id)` is recorded in the transaction of the effects.

The row is the fence: it comes before them or, of an event alone, with them. Redis claims make duplicates cheap;
this makes them harmless, also with Redis gone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Column, DateTime, MetaData, Table, Text, func, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.envelope import Envelope
from shared.publishing import UnitOfWork

metadata = MetaData()

inbox = Table(
    "inbox",
    metadata,
    Column("subscriber", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True),
)

# One statement for the whole batch. Sorted, so that two processes that hold the same events lock the rows in
# the same order; a row that another transaction is inserting is waited for, then skipped.
# The answer is one row: nearly always how many there were is all that it says, and else two arrays, which are read
# in a tenth of the time of a row per event.
_RECORD = text(
    """
    with recorded as (
      insert into inbox (subscriber, source, event_id)
      select :subscriber, source, event_id
        from unnest(cast(:sources as text[]), cast(:ids as text[])) as event (source, event_id)
       order by source, event_id
      on conflict do nothing
      returning source, event_id
    )
    select count(*),
           case when count(*) < :count then array_agg(source) end,
           case when count(*) < :count then array_agg(event_id) end
      from recorded
    """
)

# Of a lone event the number of rows says all, and PostgreSQL takes 70 % of the time.
_RECORD_ONE = text(
    """
    insert into inbox (subscriber, source, event_id) values (:subscriber, :source, :event_id)
    on conflict do nothing
    """
)

# Of one whose handler was called before the inbox was asked: it is refused if it is there.
_FENCE = text(
    """
    insert into inbox (subscriber, source, event_id) values (:inbox_subscriber, :inbox_source, :inbox_event_id)
    """
)

_PRUNE = text(
    """
    delete from inbox where ctid = any (array(
      select ctid from inbox where recorded_at < now() - make_interval(secs => :retention_s) limit :limit))
    """
)


async def record(
    connection: AsyncConnection, subscriber: str, events: Sequence[Envelope]
) -> Collection[tuple[str, str]]:
    """Insert a row per event; return the `(source, id)` of those that were there before, nearly always none."""
    if len(events) == 1:
        [event] = events
        row = {"subscriber": subscriber, "source": event.source, "event_id": event.id}
        result = await connection.execute(_RECORD_ONE, row)
        return () if result.rowcount else {(event.source, event.id)}
    sources, ids = _columns(events)
    told = {"subscriber": subscriber, "sources": sources, "ids": ids, "count": len(events)}
    recorded, some_sources, some_ids = (await connection.execute(_RECORD, told)).one()
    if recorded == len(events):
        return ()
    return set(zip(sources, ids, strict=True)).difference(zip(some_sources or (), some_ids or (), strict=True))


def fence(uow: UnitOfWork, subscriber: str, event: Envelope) -> None:
    """Have the event's row inserted at the end of `uow`, which fails if it is there."""
    row = {"inbox_subscriber": subscriber, "inbox_source": event.source, "inbox_event_id": event.id}
    uow.fence = (_FENCE, row)


_FORGET = text(
    """
    delete from inbox using unnest(cast(:sources as text[]), cast(:ids as text[])) as event (source, event_id)
     where inbox.subscriber = :subscriber
       and inbox.source = event.source
       and inbox.event_id = event.event_id
    """
)


async def forget(connection: AsyncConnection, subscriber: str, events: Sequence[Envelope]) -> None:
    """Take back the rows of events that had no effect after all, so that they may be redriven."""
    sources, ids = _columns(events)
    await connection.execute(_FORGET, {"subscriber": subscriber, "sources": sources, "ids": ids})


async def prune(connection: AsyncConnection, retention_s: float, limit: int = 5_000) -> int:
    """Delete up to `limit` rows older than `retention_s`; return how many."""
    result = await connection.execute(_PRUNE, {"retention_s": retention_s, "limit": limit})
    return result.rowcount


def _columns(events: Sequence[Envelope]) -> tuple[list[str], list[str]]:
    """Their sources and ids, as the arrays that a statement takes."""
    return [event.source for event in events], [event.id for event in events]
