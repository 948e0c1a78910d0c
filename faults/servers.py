"""Breaks servers under the system: restarted, cut off, emptied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from deploy.topology import ServerName
from faults.fault import Act
from faults.scene import Scene

AWAY_S = 10.0
CUT_S = 12.0
"""Longer than RabbitMQ's heartbeat of 10 s and than Kafka's session of 6 s."""


def restarted(server: ServerName) -> Act:
    """A server is stopped in good order, and started again."""

    async def act(scene: Scene) -> None:
        scene.begin()
        await scene.call(scene.runtime.processes.restart, server)
        scene.end()

    return act


async def broker_restarted(scene: Scene) -> None:
    """The same of whichever broker it is."""
    await restarted(scene.broker)(scene)


async def cut(scene: Scene, server: str) -> None:
    """The network to a server is silent for twelve seconds."""
    scene.begin()
    scene.proxies.cut(server)
    await asyncio.sleep(CUT_S)
    scene.proxies.mend(server)
    scene.end()


@asynccontextmanager
async def redis_client(scene: Scene) -> AsyncIterator[Redis]:
    """A client of the side's Redis."""
    client: Redis = Redis.from_url(scene.runtime.server_urls()["redis"], socket_timeout=AWAY_S)
    try:
        yield client
    finally:
        await client.aclose()


async def redis_flushed(scene: Scene) -> None:
    """Redis forgets everything."""
    async with redis_client(scene) as client:
        await client.flushall()
