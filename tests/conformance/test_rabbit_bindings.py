"""What befalls a binding: while it deletes an exchange RabbitMQ may take one that it never routes by."""

from __future__ import annotations

import asyncio
import random

import aiormq
import pytest
from aiormq.exceptions import AMQPError, PublishError

from deploy.native import Runtime
from shared.broker import tending
from tests.conformance.harness import TYPE, Harness, eventually, until_parked
from tests.conformance.servers_seen import delete_queue

TRIES_MAX = 100
DELETION_S = 0.004
"""What a deletion takes at most, or nearly so."""


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tending, "TEND_INTERVAL_S", 0.2)


async def test_a_dead_letter_that_comes_back_has_its_place_bound_anew(servers: Runtime) -> None:
    async with Harness(servers, "rabbit") as harness:
        broker, subscription = await harness.broker(), harness.subscription()
        await broker.subscribe(subscription, harness.recorder())
        await _spoil_binding(servers, f"{harness.channel}.dlx", f"{subscription.queue}.dlq", subscription.queue)
        await until_parked(broker, subscription, b"letter", harness.deadline_s)


async def test_when_something_was_gone_all_is_bound_anew(servers: Runtime) -> None:
    async with Harness(servers, "rabbit") as harness:
        publisher, broker, subscription = await harness.broker(), await harness.broker(), harness.subscription()
        await publisher.declare([harness.channel])
        await broker.subscribe(subscription, harness.recorder())
        await _spoil_binding(servers, f"{harness.channel}.events", subscription.queue, TYPE)
        await delete_queue(servers, f"{subscription.queue}.dlq")

        async def taken() -> bool:
            return not await publisher.publish(harness.messages(1))

        await eventually(taken, "events are routed", harness.deadline_s)


async def _spoil_binding(servers: Runtime, exchange: str, queue: str, routing_key: str) -> None:
    """Have the server keep the binding and route nothing by it."""
    kind = "topic" if exchange.endswith(".events") else "direct"
    connection = await aiormq.connect(servers.server_urls()["rabbit"])

    async def delete() -> None:
        channel = await connection.channel()
        await asyncio.sleep(random.uniform(0, DELETION_S))
        await channel.exchange_delete(exchange)
        await channel.close()

    async def bind() -> None:
        channel = await connection.channel()
        await channel.exchange_declare(exchange, exchange_type=kind, durable=True)
        await channel.queue_bind(queue, exchange, routing_key)
        await channel.close()

    async def bind_while_it_is_deleted() -> None:
        for _ in range(4):
            try:
                await bind()
            except AMQPError:  # it was deleted in between
                continue

    async def routes() -> bool:
        channel = await connection.channel()
        try:
            await channel.basic_publish(b"?", exchange=exchange, routing_key=routing_key, mandatory=True)
        except PublishError:
            return False
        finally:
            await channel.close()
        return True

    try:
        for _ in range(TRIES_MAX):
            await asyncio.gather(delete(), bind_while_it_is_deleted())
            await bind()
            if not await routes():
                return
        pytest.fail("this RabbitMQ routes by whatever it has bound: shared/broker/rabbit/doubts.py may go")
    finally:
        await connection.close()
