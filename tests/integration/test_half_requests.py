"""A process whose HTTP is flooded with half requests goes on: orders, relay, readiness."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aio_pika
import asyncpg
import httpx

from deploy.paths import REPOSITORY
from tests.held_ports import held_port
from tests.integration.databases import migrated_database
from tests.integration.world import World, eventually

DESCRIPTORS = 256
HALF = b"POST /users HTTP/1.1\r\nHost: x\r\n"
USER = {"email": "ada@example.org", "name": "Ada"}


@asynccontextmanager
async def user_service(world: World, dsn: str) -> AsyncIterator[str]:
    """The user service's own process, which may open `DESCRIPTORS` files; its address."""
    port = held_port()
    values = {
        **world.setting_values(http_port=port, postgres_dsn=dsn, shutdown_grace_s=5.0),
        "roles": "api,relay",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM_")}
    environment |= {f"TANDEM_{name.upper()}": str(value) for name, value in values.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.user.app", env=environment, cwd=REPOSITORY,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS)),
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


@asynccontextmanager
async def somebody_listening(world: World) -> AsyncIterator[None]:
    """A queue for the events of users: without one RabbitMQ cannot route them, and the outbox keeps them."""
    async with await aio_pika.connect(world.runtime.server_urls()["rabbit"]) as connection:

        async def bound() -> bool:
            queue = await (await connection.channel()).declare_queue(exclusive=True)
            try:
                await queue.bind("user.events", "#")
            except (
                aio_pika.exceptions.ChannelNotFoundEntity
            ):  # the service is ready before its broker is connected
                return False
            return True

        await eventually(bound, "the service has declared its exchange")
        yield


async def test_half_requests_leave_orders_relay_and_readiness_their_connections(world: World) -> None:
    """More of them than the process may open files; the client that keeps its connection keeps it."""
    dsn = await migrated_database(world.runtime, "user")
    async with (
        AsyncExitStack() as stack,
        user_service(world, dsn) as url,
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, verify=False) as http,
    ):

        async def ready() -> bool:
            try:
                return (await http.get("/health/ready")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(ready, "the service is ready")
        if world.broker_name == "rabbit":
            await stack.enter_async_context(somebody_listening(world))
        halves: list[asyncio.StreamWriter] = []
        for number in range(2 * DESCRIPTORS):
            _, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
            writer.write(HALF)
            halves.append(writer)
            if number % 32 == 0:
                assert (await http.post("/users", json=USER)).status_code == 201
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, verify=False) as other:
            assert (await other.get("/health/ready")).status_code == 200
        database = await asyncpg.connect(dsn)
        try:

            async def published() -> bool:
                return int(await database.fetchval("select count(*) from outbox")) == 0

            await eventually(published, "all events are published")
            assert await database.fetchval("select count(*) from users") == 2 * DESCRIPTORS // 32
        finally:
            await database.close()
        for writer in halves:
            writer.transport.abort()
