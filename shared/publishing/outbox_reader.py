"""Reads an outbox in the order of its places, by the session of the relay that leads; deletes what was confirmed.

A place is a row's `position`. What is being published stays in the table until it is confirmed, and is not read
again meanwhile: its places are given as a few ranges, of which a long list costs no more than a short one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from operator import itemgetter
from typing import Any

import asyncpg

from shared.publishing.doorbell import Row
from shared.settings import Settings

BATCH_BYTES_MAX = 8 * 1024 * 1024
"""What is published at once, unless the first event alone is larger: the largest events are few at once."""

_FETCH = """
with gone as (delete from outbox where position = any($6::bigint[])),
     next as materialized (
        select position, channel, type, key, event_id, traceparent, body
          from outbox
         where shard % $1 = $2 and key <> all($3::text[]) and not position <@ $7::int8multirange
         order by position
         limit $4
     ),
     weight as (select coalesce(sum(octet_length(body)), 0) as bytes from next)
select bytes, next.* from weight left join next on bytes <= $5
"""
"""Deletes what was confirmed, and reads the next ones if all together are light enough, as nearly always; where
none is read, one row has no position. Of a large body only the length is looked at for that. To read the rows a
second time for the sum would cost PostgreSQL a fifth more."""
_FETCH_AS_FAR_AS_LIGHT = """
select position, channel, type, key, event_id, traceparent, body
  from (
        select next.*, sum(octet_length(body)) over (order by position rows unbounded preceding) as bytes_so_far
          from (
                select * from outbox
                 where shard % $1 = $2 and key <> all($3::text[]) and not position <@ $6::int8multirange
                 order by position
                 limit $4
               ) as next
       ) as weighed
 where bytes_so_far <= $5 or bytes_so_far = octet_length(body)
 order by position
"""
IN_ORDER_OF_INDEX = {"enable_seqscan": "off"}
"""For the relay's session: a table that is filled and emptied all the time has no statistics that are true, and
by false ones PostgreSQL reads and sorts a whole backlog for each batch."""
_DELETE = "delete from outbox where position = any($1::bigint[])"


class OutboxReader:
    """The rows of one shard."""

    def __init__(self, settings: Settings, shard: int, connection: asyncpg.Connection[Any]) -> None:
        self._settings = settings
        self._shard = shard
        self._connection = connection

    @property
    def is_lost(self) -> bool:
        """Whether the session is known to have ended."""
        return self._connection.is_closed()

    async def next(
        self, held: Collection[str], gone: Sequence[int] = (), in_flight: Sequence[int] = ()
    ) -> Sequence[Row]:
        """Delete what is `gone`; return the next rows, a batch at most, but none `in_flight` and no key `held`."""
        arguments = (
            self._settings.relay_shards,
            self._shard,
            list(held),
            self._settings.relay_batch_max,
            BATCH_BYTES_MAX,
        )
        known = ranges_of([*gone, *in_flight])
        rows: list[asyncpg.Record] = await self._connection.fetch(_FETCH, *arguments, gone, known)
        if rows[0]["position"] is not None:
            return sorted(rows, key=itemgetter("position"))
        return await self._connection.fetch(_FETCH_AS_FAR_AS_LIGHT, *arguments, known) if rows[0]["bytes"] else []

    async def delete(self, gone: Sequence[int]) -> None:
        """Delete these, which are confirmed."""
        await self._connection.execute(_DELETE, gone)


def ranges_of(positions: Iterable[int]) -> list[asyncpg.Range[int]]:
    """The fewest ranges that hold these places and no other."""
    ranges: list[asyncpg.Range[int]] = []
    start = end = None
    for position in sorted(set(positions)):
        if position != end:
            if end is not None:
                ranges.append(asyncpg.Range(start, end))
            start = position
        end = position + 1
    if end is not None:
        ranges.append(asyncpg.Range(start, end))
    return ranges
