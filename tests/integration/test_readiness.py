"""Readiness on real servers tells what a ping would hide, and what takes no more writes is done without."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
from redis.asyncio import Redis

from shared.consuming import Subscriber
from shared.process.parts import build_parts
from shared.process.process import Process
from shared.process.server import application_of
from shared.process.service import Service
from shared.settings import Settings
from tests.integration.world import World, eventually, happened

NO_WRITES = {
    "full": ("config set maxmemory 1", "config set maxmemory 0", "maxmemory"),
    "a replica": ("replicaof 127.0.0.1 1", "replicaof no one", "read only replica"),
    "paused": ("client pause 60000 write", "client unpause", "no answer"),
}


@asynccontextmanager
async def running(service: Service, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = application_of(Process(service, build_parts(service.name, settings)))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=30) as http,
    ):
        yield http


async def ready(http: httpx.AsyncClient) -> dict[str, Any]:
    answer = await http.get("/health/ready")
    said: dict[str, Any] = answer.json()
    assert answer.status_code == (200 if said["ready"] else 503)
    return said


async def ready_in_time(http: httpx.AsyncClient) -> dict[str, Any]:
    """The first answer in which every server had its say: on a loaded machine one may have none in time."""
    said: dict[str, Any] = {}

    async def everyone_answered() -> bool:
        said.update(await ready(http))
        return not any(one.get("problem") == "no answer in time" for one in said["dependencies"].values())

    await eventually(everyone_answered, "every server answered the probe in time")
    return said


async def test_a_redis_that_takes_no_writes_is_said_and_done_without(rabbit_world: World) -> None:
    world = rabbit_world
    subscriber: Subscriber = world.subscriber()
    service = Service("tester", publishes=(world.data,), subscribers=(subscriber,))
    settings = world.settings(redis_timeout_s=0.5, roles={"consumer", "relay"})
    published = 0
    async with running(service, settings) as http, Redis.from_url(settings.redis_url) as redis:

        async def whole() -> bool:
            return bool((said := await ready(http))["ready"] and not said["degraded"])

        for state, (begin, end, reason) in NO_WRITES.items():
            await eventually(whole, f"it was well before Redis was {state}")
            await redis.execute_command(*begin.split())  # type: ignore[no-untyped-call]
            try:

                async def said_so(reason: str = reason) -> bool:
                    said = await ready(http)
                    return said["ready"] and reason in said["degraded"].get("redis", "")

                await eventually(said_so, f"it says that Redis is {state}")
                await world.publish(*(happened(number) for number in range(published, published + 5)))
                published += 5
                assert sorted(await world.await_effects(published)) == list(range(published)), state
            finally:
                await redis.execute_command(*end.split())  # type: ignore[no-untyped-call]
        await eventually(whole, "it is well again")
        assert await redis.keys("tandem:probe:*"), "it tried"


async def test_a_postgres_that_takes_no_writes_leaves_nobody_ready(rabbit_world: World) -> None:
    settings = rabbit_world.settings(roles={"api"})
    administrator = await asyncpg.connect(settings.postgres_dsn)
    try:
        await administrator.execute("set default_transaction_read_only = off")
        database = await administrator.fetchval("select current_database()")
        await administrator.execute(f'alter database "{database}" set default_transaction_read_only = on')
        try:
            async with running(Service("tester"), settings) as http:
                said = await ready_in_time(http)
        finally:
            await administrator.execute(f'alter database "{database}" reset default_transaction_read_only')
    finally:
        await administrator.close()
    assert not said["ready"]
    assert said["dependencies"]["postgres"] == {"ready": False, "problem": "PostgreSQL: takes no writes"}


async def test_a_process_that_serves_requests_is_ready_without_its_broker_and_another_is_not(world: World) -> None:
    service = Service("tester", publishes=(world.data,))
    nowhere: dict[str, Any] = {"rabbit_url": "amqp://a:b@127.0.0.1:1/", "kafka_bootstrap": "127.0.0.1:1"}
    for roles, is_ready in (({"api", "relay"}, True), ({"relay"}, False)):
        settings = world.settings(**nowhere, roles=roles)
        async with running(service, settings) as http:
            said = await ready_in_time(http)
            assert said["ready"] is is_ready
            assert said["dependencies"][settings.broker]["ready"] is False
            assert (settings.broker in said["degraded"]) is is_ready
            assert (await http.get("/health/live")).status_code == 200
