"""A subscription among its group's members: joining late, leaving, and handing over while a batch runs."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from shared.broker.base import Delivery, Settlement
from shared.broker.connect import create_broker
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


async def test_a_member_that_joins_waits_for_the_batch_that_runs(kafka_world: World) -> None:
    """For longer than a session lasts (6 s), and than the client waits for one answer (10 s)."""
    runs: Counter[bytes] = Counter()
    running, enough = asyncio.Event(), asyncio.Event()

    async def handle(deliveries: Sequence[Delivery]) -> list[Settlement]:
        runs.update(delivery.body for delivery in deliveries)
        running.set()
        await asyncio.wait_for(enough.wait(), 60)
        return [Settlement.ACK] * len(deliveries)

    settings: dict[str, Any] = {"connect_timeout_s": 60.0}
    await kafka_world.publish(*(happened(number, f"k{number}") for number in range(EVENTS)))
    first, second = await kafka_world.broker(**settings), await kafka_world.broker(**settings)
    await first.subscribe(kafka_world.subscription, handle)
    await asyncio.wait_for(running.wait(), 60)
    joining = asyncio.create_task(second.subscribe(kafka_world.subscription, handle))
    asyncio.get_running_loop().call_later(13, enough.set)
    await joining
    await kafka_world.publish(happened(EVENTS))
    await eventually(lambda: _true(len(runs) == EVENTS + 1), "everything is handled")
    assert set(runs.values()) == {1}
    assert not any((*first.settlement_failures.values(), *second.settlement_failures.values()))


async def _true(condition: bool) -> bool:
    return condition


async def test_who_leaves_while_kafka_does_not_answer_leaves_nothing_running(kafka_world: World) -> None:
    """Its tasks had gone on fetching, for a group that it was no member of, until the process ended."""

    async def acknowledge(deliveries: Sequence[Delivery]) -> list[Settlement]:
        return [Settlement.ACK] * len(deliveries)

    await kafka_world.publisher()
    before = asyncio.all_tasks()
    try:
        async with create_broker(kafka_world.settings(shutdown_grace_s=1.0), "leaving") as broker:
            await broker.subscribe(kafka_world.subscription, acknowledge)
            assert {"Fetcher", "GroupCoordinator", "AIOKafkaClient"} <= _clients_since(before)
            kafka_world.runtime.processes.kill("kafka", signal.SIGSTOP)
    finally:
        kafka_world.runtime.processes.kill("kafka", signal.SIGCONT)
    assert _clients_since(before) == set()


def _clients_since(before: set[asyncio.Task[Any]]) -> set[str]:
    """The parts of aiokafka whose tasks have begun since, and run."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks() - before]
    return {name.partition(".")[0] for name in names if name.endswith(("_routine", "_synchronizer", "_request"))}
