"""The dead-letter service beside a test's world: real processes of it on a database of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Any

import asyncpg
import httpx
import orjson

from shared.migrate import migrate
from tests.forked import fork
from tests.held_ports import held_port
from tests.integration.world import SUBSCRIBER, World, eventually

DATABASE = "integration_dead_letter"


class Letters:
    """What the service keeps, as a client and as its database see it."""

    def __init__(self, urls: list[str], database: asyncpg.Pool[Any]) -> None:
        self.urls = urls
        self.http = httpx.AsyncClient(base_url=urls[0], timeout=30, trust_env=False, verify=False)
        self._database = database

    async def rows(self) -> list[dict[str, Any]]:
        return [dict(row) for row in await self._database.fetch("select * from dead_letter order by sequence")]

    async def execute(self, statement: str) -> None:
        """What no client could do."""
        await self._database.execute(statement)

    async def states(self) -> list[str]:
        return sorted(row["state"] for row in await self.rows())

    async def until(self, count: int, state: str) -> list[dict[str, Any]]:
        """Wait until there are so many letters, and all of them are in this state."""

        async def there() -> list[dict[str, Any]] | None:
            rows = await self.rows()
            return rows if len(rows) == count and {row["state"] for row in rows} <= {state} else None

        try:
            rows: list[dict[str, Any]] = await eventually(there, f"{count} letters are {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}; states: {await self.states()}") from None
        return rows

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.http.post(path, json={} if body is None else body)


async def emptied(world: World) -> str:
    """The DSN of the service's database, with empty tables."""
    await asyncio.to_thread(world.runtime.ensure_databases, [DATABASE])
    dsn = world.runtime.dsn(DATABASE)
    connection = await asyncpg.connect(dsn)
    if await connection.fetchval("select to_regclass('dead_letter')") is None:
        await migrate("dead_letter", dsn)
    await connection.execute("truncate dead_letter, redrive, alert, idempotency_key restart identity")
    await connection.close()
    return dsn


@asynccontextmanager
async def letters_of(
    world: World,
    replicas: int = 1,
    environment: Mapping[str, str] = MappingProxyType({}),
    dsn: str | None = None,
    **settings: Any,
) -> AsyncIterator[Letters]:
    """Run the service for the world's subscription until the block is left, on its own database, which is emptied
    first, or on one that is brought along."""
    dsn = dsn or await emptied(world)
    values = {
        "redrive_poll_interval_s": 0.1,
        **world.setting_values(),
        **settings,
        "postgres_dsn": dsn,
        "roles": "api,consumer",
        "dead_letter_subscriptions": f"{SUBSCRIBER}.{world.channel}",
    }
    async with AsyncExitStack() as stack:
        urls = []
        for port in [held_port() for _ in range(replicas)]:
            await stack.enter_async_context(_replica({**values, "http_port": port}, environment))
            urls.append(f"http://127.0.0.1:{port}")
        # A connection for every look would cost more than all else that a test waits for.
        database = await stack.enter_async_context(asyncpg.create_pool(dsn, min_size=0, max_size=2))
        letters = Letters(urls, database)
        stack.push_async_callback(letters.http.aclose)
        for url in urls:
            await eventually(lambda url=url: _ready(letters, url), "the service is ready")  # type: ignore[misc]
        yield letters


@asynccontextmanager
async def webhook() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A URL that takes alerts, and the alerts that it was sent."""
    taken: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        taken.append(orjson.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/alerts", taken


@asynccontextmanager
async def _replica(values: dict[str, Any], more: Mapping[str, str]) -> AsyncIterator[None]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TANDEM_")} | dict(more)
    environment |= {f"TANDEM_{name.upper()}": str(value) for name, value in values.items()}
    process = await fork("services.dead_letter.app", environment=environment)
    try:
        yield
    finally:
        await process.end()


async def _ready(letters: Letters, url: str) -> bool:
    try:
        return (await letters.http.get(f"{url}/health/ready")).status_code == 200
    except httpx.TransportError:
        return False
