"""What an operator sees: queues and outbox as gauges, and a system that runs on without Redis and says so."""

from __future__ import annotations

import asyncio
import re
from uuid import UUID

import httpx
import pytest
from uuid_utils.compat import uuid7

from shared.broker.base import Subscription
from shared.consuming.subscriber import Subscriber
from shared.dead_letter import headers as dead_letter
from shared.dead_letter.headers import Kind
from shared.errors import UnavailableError
from shared.process.parts import build_parts
from shared.process.process import Process
from shared.process.server import application_of
from shared.process.service import Service
from shared.publishing.outbox import insert_outbox, outbox_state
from shared.telemetry.gauges import Gauges
from shared.telemetry.measurements import Sample
from shared.telemetry.provider import prometheus_page
from tests.conformance.servers_seen import delete_account, give_rights, make_account, withdraw_rights
from tests.integration.letters import letters_of
from tests.integration.world import SUBSCRIBER, Happened, World, eventually, happened
from tests.outbox_rows import outbox_row

EVENTS = 20


async def test_a_queue_without_a_consumer_grows_and_one_with_a_consumer_empties(world: World) -> None:
    broker = await world.publisher()
    await world.publish(*(happened(number, f"k{number % 5}") for number in range(EVENTS)))

    async def stands(messages: int, consumers: int) -> bool:
        [state] = await broker.queue_states([world.subscription])
        assert (state.queue, state.group) == (world.subscription.queue, SUBSCRIBER)
        return (state.messages, state.consumers) == (messages, consumers)

    await eventually(lambda: stands(EVENTS, 0), "every event waits, nobody consumes")
    async with world.consumer():
        await world.await_effects(EVENTS)
        await eventually(lambda: stands(0, 1), "nothing waits, one consumer is connected")


async def test_what_is_given_back_counts_before_anybody_has_read_it(world: World) -> None:
    broker = await world.publisher()
    for delivery in world.deliver([happened(1), happened(2)]):
        await broker.publish_retry(world.subscription, delivery, {})

    async def both() -> bool:
        return [state.messages for state in await broker.queue_states([world.subscription])] == [2]

    await eventually(both, "both wait for the subscriber")


async def test_what_is_not_there_hides_nothing_else(world: World) -> None:
    broker = await world.publisher()
    nobody = Subscription(channel=f"{world.channel}x", subscriber="nobody", types=frozenset())
    for states in (
        await broker.queue_states([nobody, world.subscription]),
        await broker.dead_letter_states([nobody, world.subscription], "dead_letter"),
    ):
        assert [(state.messages, state.consumers) for state in states] == [(0, 0)]


@pytest.mark.timeout(300)
async def test_the_dead_letter_service_says_how_a_subscriber_stands_that_is_not_running(world: World) -> None:
    broker = await world.publisher()
    await world.publish(*(happened(number) for number in range(EVENTS)))
    for delivery in world.deliver([happened(number) for number in range(3)]):
        await broker.publish_dead_letter(world.subscription, delivery, {dead_letter.KIND: Kind.FAILED.value})

    async def behind() -> bool:
        [state] = await broker.dead_letter_states([world.subscription], "dead_letter")
        return (state.messages, state.consumers) == (3, 0)

    await eventually(behind, "the letters wait for the service")
    async with letters_of(world, metrics_interval_s=0.2) as letters:

        async def measured() -> bool:
            page = (await letters.http.get("/metrics")).text
            queue = f'tandem_queue="{world.subscription.queue}"'
            place = f'tandem_queue="{world.subscription.queue}.dl'
            return [
                (samples(page, "tandem_queue_messages", one), samples(page, "tandem_queue_consumers", one))
                for one in (queue, place)
            ] == [([EVENTS], [0]), ([0], [1])] and samples(page, "tandem_measurement_up") == [1, 1, 1]

        await eventually(measured, "its metrics say so of the queue and of the dead-letter place")


async def test_what_nobody_answers_any_more_has_no_value(rabbit_world: World) -> None:
    question, answers = rabbit_world.name, True

    async def ask() -> list[Sample]:
        if not answers:
            raise UnavailableError("gone")
        return [Sample("tandem.queue.messages", 7, {"tandem.queue": question})]

    gauges = Gauges(
        rabbit_world.settings(metrics_interval_s=0.05),
        rabbit_world.telemetry.metrics.measurements,
        {question: ask},
    )
    asking = asyncio.create_task(gauges.run())

    def said() -> tuple[list[float], list[float]]:
        page = prometheus_page()[0].decode()
        up = samples(page, "tandem_measurement_up", question)
        return samples(page, "tandem_queue_messages", question), up

    async def says(messages: list[float], up: float) -> bool:
        return said() == (messages, [up])

    try:
        await eventually(lambda: says([7], 1), "the answer")
        answers = False
        await eventually(lambda: says([], 0), "no value, and that nobody answered")
        answers = True
        await eventually(lambda: says([7], 1), "the answer again")
    finally:
        asking.cancel()
        await asyncio.wait([asking], timeout=5)


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


def samples(page: str, name: str, label: str = "") -> list[float]:
    """Those of a metric whose labels hold `label`."""
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", page, re.MULTILINE)
    return [float(value) for labels, value in found if label in labels]


async def test_a_process_without_redis_is_ready_and_says_what_it_lacks(rabbit_world: World) -> None:
    data: type[Happened] = rabbit_world.data
    subscriber: Subscriber = rabbit_world.subscriber()
    service = Service("tester", publishes=(data,), subscribers=(subscriber,))
    settings = rabbit_world.settings(
        redis_url="redis://127.0.0.1:1/0", metrics_interval_s=0.2, roles={"consumer", "relay"}
    )
    app = application_of(Process(service, build_parts(service.name, settings)))
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
                and samples(page, "tandem_queue_consumers", queue) == [1]
                and samples(page, "tandem_queue_messages", queue) == [0]
                and samples(page, "tandem_settlement_failures_total", queue) == [0]
                and "tandem_outbox_oldest_age_seconds" in page
            )

        await eventually(measured, "the metrics say so")


async def test_a_process_whose_stream_is_stopped_is_not_ready_and_says_what_is_missing(
    rabbit_world: World,
) -> None:
    """Of its rights on the broker it keeps none but to connect; given back, it goes on by itself."""
    subscriber: Subscriber = rabbit_world.subscriber()
    account = rabbit_world.channel
    url = await make_account(rabbit_world.runtime, account)
    try:
        settings = rabbit_world.settings(rabbit_url=url, roles={"consumer"})
        parts = build_parts("tester", settings)
        app = application_of(Process(Service("tester", subscribers=(subscriber,)), parts))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=30) as http,
        ):

            async def answers(status: int, says: str) -> bool:
                answer = await http.get("/health/ready")
                return answer.status_code == status and says in answer.text

            queue = f"{subscriber.name}.{rabbit_world.channel}"
            await eventually(lambda: answers(200, ""), "the process is ready")
            await withdraw_rights(rabbit_world.runtime, account)
            await eventually(lambda: answers(503, f"{queue} cannot be declared"), "it says what is missing")
            page = (await http.get("/metrics")).text
            assert samples(page, "tandem_broker_troubles", f'tandem_place="{queue}"') == [1]
            await give_rights(rabbit_world.runtime, account)
            await eventually(lambda: answers(200, ""), "the process is ready again")
            await rabbit_world.publish(happened(1))
            assert await rabbit_world.await_effects(1) == [1]
    finally:
        await delete_account(rabbit_world.runtime, account)


async def test_a_process_without_postgres_is_not_ready(rabbit_world: World) -> None:
    settings = rabbit_world.settings(postgres_dsn="postgresql://nobody@127.0.0.1:1/none")
    app = application_of(Process(Service("tester"), build_parts("tester", settings)))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=30) as http,
    ):
        answer = await http.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json()["ready"] is False
        assert answer.json()["dependencies"]["postgres"]["ready"] is False
