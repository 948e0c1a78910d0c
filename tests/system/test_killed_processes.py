"""Processes killed with SIGKILL where it hurts most: nothing lost, nothing doubled, taken up again in seconds."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from tests.system.running_system import RunningSystem, eventually, exists

TAKEN_UP_S = 90.0
"""A bound, far below the 300 s of a claim's lock, on a machine that may be busy; usually it takes seconds."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("point", "with_effect"), [("claimed", False), ("committed", True), ("marked", True)])
async def test_a_consumer_killed_around_its_commit_loses_and_doubles_nothing(
    system: RunningSystem, tmp_path: Path, point: str, with_effect: bool
) -> None:
    async with system.halted("notification-consumer", point, tmp_path) as reached:
        user = await system.register()
        orders = [await system.order(user) for _ in range(15)]
        await eventually(lambda: exists(reached), f"the consumer is {point}")
        told = await system.notifications_of(orders)
        registered = await system.told_of(user_id=user)
        assert bool(told or registered) == with_effect, "it was not stopped where it should be"
    await system.each_told_once(orders, deadline_s=TAKEN_UP_S)

    async def told_of_the_user() -> int:
        return (await system.told_of(user_id=user)).count("user.registered")

    # It comes on a channel of its own, whose batch the consumer may have had in hand, too.
    await eventually(told_of_the_user, "the user's registration is told", TAKEN_UP_S)
    await system.quiet()
    assert await told_of_the_user() == 1


@pytest.mark.timeout(300)
async def test_a_relay_killed_between_publish_and_delete_loses_and_doubles_nothing(
    system: RunningSystem, tmp_path: Path
) -> None:
    user = await system.register()
    first = await system.order(user)
    await system.each_told_once([first])
    async with system.halted("order", "published", tmp_path) as reached:
        orders = [await system.order(user) for _ in range(15)]
        await eventually(lambda: exists(reached), "the relay has published")
        assert await system.outbox_length("order") == len(orders), "it must not delete what it cannot know of"
        await eventually(lambda: system.notifications_of(orders), "what it published has arrived")
    await system.each_told_once([first, *orders], deadline_s=TAKEN_UP_S)


CLIENTS = 8
EACH = 40
"""Orders for each kill, which comes when half of them are placed."""


@pytest.mark.timeout(600)
async def test_orders_survive_services_that_are_killed_again_and_again(system: RunningSystem) -> None:
    user = await system.register()
    await system.order(user)
    keys: asyncio.Queue[str | None] = asyncio.Queue()
    orders: list[str] = []

    async def client() -> None:
        while key := await keys.get():
            order = await system.order(user, key)
            orders.append(order)

    clients = asyncio.gather(*(client() for _ in range(CLIENTS)))
    victims = [system.process(name) for name in ("order", "order-consumer", "notification-consumer")] * 2
    random.shuffle(victims)
    for turn, victim in enumerate(victims):
        for _ in range(EACH):
            keys.put_nowait(str(uuid4()))
        await eventually(partial(_so_many, orders, turn * EACH + EACH // 2), f"the turn of {victim}")
        await asyncio.to_thread(system.runtime.processes.kill, victim)
        await asyncio.to_thread(system.runtime.processes.wait_ready, victim)
    for _ in range(CLIENTS):
        keys.put_nowait(None)
    await clients
    placed = EACH * len(victims)
    assert len(orders) == len(set(orders)) == placed, "a key stands for one order"
    await system.each_told_once(orders)
    [row] = await system.rows("order", "select count(*) as count from orders where user_id::text = $1", user)
    assert row["count"] == placed + 1


async def _so_many(orders: list[str], due: int) -> bool:
    return len(orders) >= due
