"""Keeps the order service's tables: users are known, and orders and events that wait are counted."""

from __future__ import annotations

from typing import Self
from uuid import UUID

import asyncpg

from shared.migrate import bring_up_to_date

_USERS = 100
_CLEAR = "truncate orders, known_user, order_verdict, outbox"
_KNOW = """
insert into known_user (user_id, active, version) select id, true, 1 from unnest($1::uuid[]) as u (id)
"""


class OrderTables:
    """A database of the order service; an async context manager."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.users = [UUID(int=number) for number in range(1, _USERS + 1)]

    async def __aenter__(self) -> Self:
        await bring_up_to_date("order", self.dsn)
        self._postgres = await asyncpg.connect(self.dsn)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._postgres.close()

    async def clear(self) -> None:
        """Forget all orders; the users are known."""
        await self._postgres.execute(_CLEAR)
        await self._postgres.execute(_KNOW, self.users)
        await self._postgres.execute("checkpoint")

    async def count(self) -> int:
        """How many orders there are."""
        return int(await self._postgres.fetchval("select count(*) from orders"))
