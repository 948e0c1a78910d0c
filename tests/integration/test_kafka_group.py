"""A subscription among its group's members: it reads every partition that it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaConsumer

from shared.broker.base import Delivery, Settlement
from shared.errors import UnavailableError
from tests.conformance.servers_seen import group_members
from tests.integration.world import SUBSCRIBER, World, eventually, happened

EVENTS = 6


async def test_a_consumer_that_started_too_slowly_holds_no_partition(
    kafka_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had joined by itself when nobody waited for it any more, and its partitions stood still."""
    start = AIOKafkaConsumer.start

    async def too_slowly(consumer: AIOKafkaConsumer) -> None:
        await start(consumer)
        await asyncio.Event().wait()

    async def acknowledge(deliveries: Sequence[Delivery]) -> list[Settlement]:
        seen.update(delivery.body for delivery in deliveries)
        return [Settlement.ACK] * len(deliveries)

    seen: set[bytes] = set()
    events = [happened(number, f"k{number}") for number in range(EVENTS)]
    await kafka_world.publish(*events)
    broker = await kafka_world.broker(connect_timeout_s=8.0)
    with monkeypatch.context() as slow:
        slow.setattr(AIOKafkaConsumer, "start", too_slowly)
        with pytest.raises(UnavailableError):
            await broker.subscribe(kafka_world.subscription, acknowledge)
    assert not await group_members(kafka_world.runtime, SUBSCRIBER)
    await broker.subscribe(kafka_world.subscription, acknowledge)

    async def all_there() -> bool:
        return seen == {event.encode() for event in events}

    await eventually(all_there, "every partition is read")
