"""An inbox with a past is like one that was used for a week."""

from __future__ import annotations

import asyncpg

from bench import past
from deploy.native import Runtime
from shared.envelope import Envelope
from tests.integration.databases import migrated_database

_SHAPE = """
select count(*), min(length(event_id)), max(length(event_id)), max(event_id), bool_and(recorded_at < now()),
       array_agg(event_id order by event_id) = array_agg(event_id order by recorded_at) as in_order
  from inbox
"""
_NOW = "insert into inbox (subscriber, source, event_id) values ('s', '/now', '7')"


async def test_what_is_recorded_now_is_behind_the_past_and_taken_away_alone(servers: Runtime) -> None:
    dsn = await migrated_database(servers, "notification")
    connection, another = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    try:
        await past.fill(connection, another, "s", 1_000)
        [[count, shortest, longest, last, is_past, in_order]] = await connection.fetch(_SHAPE)
        new = Envelope(source="/now", type="t", data=None).id
        assert (count, shortest, longest, is_past, in_order) == (1_000, len(new), len(new), True, True)
        assert last < new
        await connection.execute(_NOW)
        assert [row["event_id"] for row in await connection.fetch(past.RECORDED_NOW)] == ["7"]
        await past.keep(connection)
        assert await connection.fetch(past.RECORDED_NOW) == []
        assert await connection.fetchval("select count(*) from inbox") == count
    finally:
        await connection.close()
        await another.close()
