"""How fast rows were committed, by PostgreSQL's own times of the commits (`track_commit_timestamp`)."""

from __future__ import annotations

from typing import Any

import asyncpg

from bench.errors import BenchError

_MEASURE = """
with committed as (select pg_xact_commit_timestamp(xmin) as at from {rows}),
     ends as (select min(at) as first, max(at) as last from committed)
select extract(epoch from ends.last - ends.first)::float8 as duration_s,
       (select count(*) from committed where at > ends.first) as count
  from ends
"""


async def rate_per_s(connection: asyncpg.Connection[Any], rows: str) -> float:
    """Rows per second from the first commit to the last; those of the first commit are not counted.

    `rows` is what SQL selects them from: a table, with a condition or without. Raises `BenchError` when all were
    committed at once.
    """
    [row] = await connection.fetch(_MEASURE.format(rows=rows))
    return rate_of(rows, row["count"], row["duration_s"])


def rate_of(what: str, count: int, duration_s: float | None) -> float:
    """So many later than the first, by the seconds from the first to the last. Raises `BenchError` for none."""
    if not duration_s:
        raise BenchError(f"every {what} was stored at once: there is nothing to measure, use more --events")
    return count / duration_s
