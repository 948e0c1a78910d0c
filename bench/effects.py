"""Keeps the tables of the durable effect, and measures and checks what a contender left there and in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import asyncpg
from redis.asyncio import Redis
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, insert
from sqlalchemy.ext.asyncio import create_async_engine

from bench import committed
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


class Effects:
    """One contender's durable work, in PostgreSQL and Redis; an async context manager."""

    def __init__(self, dsn: str, redis_url: str) -> None:
        self._dsn = dsn
        self._redis_url = redis_url

    async def __aenter__(self) -> Self:
        self._postgres = await asyncpg.connect(self._dsn)
        self._redis: Redis = Redis.from_url(self._redis_url, decode_responses=True)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._postgres.close()
        await self._redis.aclose()

    async def create(self) -> None:
        """Make the tables."""
        engine = create_async_engine(self._dsn.replace("postgresql://", "postgresql+asyncpg://", 1))
        async with engine.begin() as connection:
            for tables in (inbox.metadata, outbox.metadata, metadata):
                await connection.run_sync(tables.create_all)
        await engine.dispose()

    async def clear(self) -> None:
        """Leave nothing of the contender before, and no dirty pages of its for the next one's time."""
        await self._postgres.execute("truncate effect, inbox, outbox")
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

    async def problems(self, events: Sequence[WireEvent], subscriber: str, *, claimed: bool = True) -> list[str]:
        """What is wrong; empty when every event has one effect, one inbox row and, if it was `claimed`, a claim
        marked done."""
        wanted = {event.id for event in events}
        effects = [row["event_id"] for row in await self._postgres.fetch("select event_id from effect")]
        inboxed = {row["event_id"] for row in await self._postgres.fetch("select event_id from inbox")}
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
