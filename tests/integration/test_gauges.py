"""What an operator sees: queues and outbox as gauges, and a system that runs on without Redis and says so."""

from __future__ import annotations

import re
from uuid import UUID

import httpx
from starlette.applications import Starlette
from uuid_utils.compat import uuid7

from shared.broker.base import QueueState
from shared.event import Subscriber
from shared.outbox import insert_outbox, outbox_row, outbox_state
from shared.process import Process, Service
from tests.integration.world import Happened, World, eventually, happened

EVENTS = 20


async def test_a_queue_without_a_consumer_grows_and_one_with_a_consumer_empties(world: World) -> None:
    broker = await world.publisher()
    await world.publish(*(happened(number, f"k{number % 5}") for number in range(EVENTS)))

    async def is_full() -> bool:
        return await broker.queue_states([world.subscription]) == [QueueState(world.subscription.queue, EVENTS, 0)]

    await eventually(is_full, "every event waits, nobody consumes")
    async with world.consumer():
        await world.await_effects(EVENTS)

        async def is_empty() -> bool:
            return await broker.queue_states([world.subscription]) == [QueueState(world.subscription.queue, 0, 1)]

        await eventually(is_empty, "nothing waits, one consumer is connected")


async def test_the_outbox_says_how_much_waits_and_for_how_long(rabbit_world: World) -> None:
    database = rabbit_world.database
    async with database.transaction() as connection:
        empty = await outbox_state(connection, 10)
        assert (empty.messages, empty.oldest_age_s) == (0, 0.0)
        waiting = [outbox_row("thing", happened(number, id=str(uuid7()))) for number in range(3)]
        waiting[0]["event_id"] = str(UUID(int=1_000_000_000_000 << 80))  # of the year 2001
        await connection.execute(insert_outbox, waiting)
        state = await outbox_state(connection, 10)
        assert state.messages == 3
        assert state.oldest_age_s > 20 * 365 * 86_400
        assert (await outbox_state(connection, 2)).messages == 2, "it counts no further than it is told"


def gauge(page: str, name: str, label: str = "") -> float:
    """The one sample of a metric whose labels hold `label`."""
    samples = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", page, re.MULTILINE)
    [value] = [value for labels, value in samples if label in labels]
    return float(value)


async def test_a_process_without_redis_is_ready_and_says_what_it_lacks(rabbit_world: World) -> None:
    data: type[Happened] = rabbit_world.data
    subscriber: Subscriber = rabbit_world.subscriber()
    service = Service("tester", publishes=(data,), subscribers=(subscriber,))
    settings = rabbit_world.settings(
        redis_url="redis://127.0.0.1:1/0", metrics_interval_s=0.2, roles={"consumer", "relay"}
    )
    process = Process(service, settings)
    app = Starlette(routes=process.routes(), lifespan=process.lifespan)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=30) as http,
    ):

        async def ready() -> httpx.Response | None:
            answer = await http.get("/health/ready")
            return answer if answer.status_code == 200 else None

        answer = (await eventually(ready, "the process is ready")).json()
        assert answer["ready"] is True
        assert "Redis" in answer["degraded"]["redis"]
        assert answer["dependencies"]["postgres"] == {"ready": True}
        await rabbit_world.publish(*(happened(number) for number in range(EVENTS)))
        assert await rabbit_world.await_effects(EVENTS) == list(range(EVENTS))

        async def measured() -> bool:
            page = (await http.get("/metrics")).text
            queue = f'tandem_queue="{subscriber.name}.{rabbit_world.channel}"'
            claims = re.findall(r"^tandem_claims_total{(.*)} (\S+)$", page, re.MULTILINE)
            without = [float(n) for labels, n in claims if queue in labels and '"unavailable"' in labels]
            return (
                sum(without) >= EVENTS
                and gauge(page, "tandem_queue_consumers", queue) == 1
                and gauge(page, "tandem_queue_messages", queue) == 0
                and "tandem_outbox_oldest_age_seconds" in page
            )

        await eventually(measured, "the metrics say so")


async def test_a_process_without_postgres_is_not_ready(rabbit_world: World) -> None:
    settings = rabbit_world.settings(postgres_dsn="postgresql://nobody@127.0.0.1:1/none")
    process = Process(Service("tester"), settings)
    app = Starlette(routes=process.routes(), lifespan=process.lifespan)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=30) as http,
    ):
        answer = await http.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json()["ready"] is False
        assert answer.json()["dependencies"]["postgres"]["ready"] is False
