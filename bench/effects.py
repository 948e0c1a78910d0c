"""Keeps the tables of the durable effect, and measures and checks what a contender left there and in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import asyncpg
from redis.asyncio import Redis
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, insert
from sqlalchemy.ext.asyncio import create_async_engine

from bench import committed, past
from bench.events import WireEvent
from shared.consuming import inbox
from shared.publishing import outbox

metadata = MetaData()

# Without a key of its own, so that an effect that happened twice is seen.
effect = Table(
    "effect",
    metadata,
    Column("event_id", Text, nullable=False),
    Column("order_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("total_amount", BigInteger, nullable=False),
)

INSERT_EFFECT = insert(effect)

_DONE = "d"


_COMMITTED_AT = """
select order_id, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 as at from effect
"""

_ENDS = f"select min(at) as first, max(at) as last from ({_COMMITTED_AT}) as committed"  # noqa: S608  constants


class Effects:
    """One contender's durable work, in PostgreSQL and Redis; an async context manager."""

    def __init__(self, dsn: str, redis_url: str) -> None:
        self.dsn = dsn
        self._redis_url = redis_url
        self._has_past = False

    async def __aenter__(self) -> Self:
        # What counts meanwhile has no helpers on a server that is measured.
        self._postgres = await asyncpg.connect(self.dsn, server_settings={"max_parallel_workers_per_gather": "0"})
        self._redis: Redis = Redis.from_url(self._redis_url, decode_responses=True)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._postgres.close()
        await self._redis.aclose()

    async def create(self) -> None:
        """Make the tables."""
        engine = create_async_engine(self.dsn.replace("postgresql://", "postgresql+asyncpg://", 1))
        async with engine.begin() as connection:
            for tables in (inbox.metadata, outbox.metadata, metadata):
                await connection.run_sync(tables.create_all)
        await engine.dispose()

    async def give_past(self, subscriber: str, rows: int) -> None:
        """Have the inbox begin with so many rows, of the last days, from now on."""
        await self._postgres.execute("truncate inbox")
        another = await asyncpg.connect(self.dsn)
        try:
            await past.fill(self._postgres, another, subscriber, rows)
        finally:
            await another.close()
        self._has_past = True

    async def clear(self) -> None:
        """Leave nothing of the contender before, and no dirty pages of its for the next one's time."""
        await self._postgres.execute("truncate effect, outbox")
        if self._has_past:
            await past.keep(self._postgres)
        else:
            await self._postgres.execute("truncate inbox")
        await self._postgres.execute("checkpoint")
        await self._redis.flushdb()

    async def count(self) -> int:
        """How many effect rows are committed."""
        return int(await self._postgres.fetchval("select count(*) from effect"))

    async def rate_per_s(self) -> float:
        """Effects per second from the first commit to the last; those of the first commit are not counted.

        Raises `BenchError` when everything was committed at once.
        """
        return await committed.rate_per_s(self._postgres, "effect")

    async def began_and_ended_s(self) -> tuple[float, float]:
        """When the first effect was committed, and when the last, in seconds since the epoch, by PostgreSQL."""
        [row] = await self._postgres.fetch(_ENDS)
        return row["first"], row["last"]

    async def committed_at_s(self) -> dict[str, float]:
        """When each order's effect was committed, in seconds since the epoch, by PostgreSQL."""
        return {row["order_id"]: row["at"] for row in await self._postgres.fetch(_COMMITTED_AT)}

    async def problems(self, events: Sequence[WireEvent], subscriber: str, *, claimed: bool = True) -> list[str]:
        """What is wrong; empty when every event has one effect, one inbox row and, if it was `claimed`, a claim
        marked done."""
        wanted = {event.id for event in events}
        effects = [row["event_id"] for row in await self._postgres.fetch("select event_id from effect")]
        inboxed = {row["event_id"] for row in await self._postgres.fetch(past.RECORDED_NOW)}
        keys = await self._redis.keys(f"tandem:claim:{subscriber}:*")
        values = await self._redis.mget(keys) if keys else []
        done = {str(key).rsplit(":", 1)[-1] for key, value in zip(keys, values, strict=True) if value == _DONE}
        counts = {
            "without an effect": len(wanted - set(effects)),
            "never sent, but with an effect": len(set(effects) - wanted),
            "with a second effect": len(effects) - len(set(effects)),
            "without an inbox row": len(wanted - inboxed),
            "whose claim is not marked done": len(wanted - done) if claimed else 0,
        }
        return [f"{count} events {what}" for what, count in counts.items() if count]
