"""Gives an inbox a past: rows as a busy system has them after a week, in the order of their times.

Their ids are made as UUIDs of version 7 are, so that new ones are behind all of them in the index, as in a system
that was at work all the time.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg

from bench.errors import BenchError
from bench.events import SOURCE

ROWS = 10_000_000
_PART = 500_000
_BYTES_PER_ROW = 900
"""Twice what a row takes with its indexes: the write-ahead log and the sorting for the indexes come beside it."""
_AGE = "interval '7 days'"
"""Younger than what is pruned."""
_YOUNGEST = "interval '1 hour'"

_FILL = f"""
insert into inbox (subscriber, source, event_id, recorded_at)
select $1, $2, left(ms, 8) || '-' || right(ms, 4) || '-7000-8000-' || lpad(to_hex(number), 12, '0'), at
  from (select number, at, lpad(to_hex((extract(epoch from at) * 1000)::int8), 12, '0') as ms
          from (select number, now() - {_YOUNGEST} - {_AGE} * (1 - number::float8 / $5) as at
                  from generate_series($3::int8, $4::int8) as number) as passed) as named
"""  # noqa: S608  constants
_WITHOUT_INDEXES = "alter table inbox drop constraint inbox_pkey; drop index ix_inbox_recorded_at"
_WITH_INDEXES = """
alter table inbox add primary key (subscriber, source, event_id);
create index ix_inbox_recorded_at on inbox (recorded_at)
"""
RECORDED_NOW = f"select event_id from inbox where recorded_at > now() - {_YOUNGEST}"  # noqa: S608  constants
_KEEP = f"delete from inbox where recorded_at > now() - {_YOUNGEST}"  # noqa: S608  constants


def require_room(place: Path, rows: int) -> None:
    """Raises `BenchError` when the disk has no room for an inbox of so many rows."""
    needed, free = rows * _BYTES_PER_ROW, shutil.disk_usage(place).free
    if free < needed:
        raise BenchError(
            f"an inbox of {rows:,} rows wants {needed / 1e9:.1f} GB of disk and there are {free / 1e9:.1f}: "
            "use fewer --past"
        )


async def fill(
    connection: asyncpg.Connection[Any], another: asyncpg.Connection[Any], subscriber: str, rows: int
) -> None:
    """Fill an empty inbox, over both connections at once. The indexes are made when all rows are there: that takes
    a third of the time."""
    await connection.execute(_WITHOUT_INDEXES)
    starts = iter(range(1, rows + 1, _PART))
    await asyncio.gather(*(_fill_parts(each, starts, subscriber, rows) for each in (connection, another)))
    await connection.execute(_WITH_INDEXES)
    await connection.execute("vacuum analyze inbox")
    await connection.execute("checkpoint")


async def _fill_parts(
    connection: asyncpg.Connection[Any], starts: Iterator[int], subscriber: str, rows: int
) -> None:
    await connection.execute("set synchronous_commit = off")
    for start in starts:
        await connection.execute(_FILL, subscriber, SOURCE, start, min(start + _PART - 1, rows), rows)
    await connection.execute("set synchronous_commit = on")


async def keep(connection: asyncpg.Connection[Any]) -> None:
    """Delete what was recorded since the inbox was filled."""
    await connection.execute(_KEEP)
    await connection.execute("vacuum inbox")
