"""A transaction for each event, several at once: each has its effect once, and those of a key in order."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import orjson
import pytest
from sqlalchemy import text

from shared.errors import BusinessError
from shared.event import Event
from shared.failpoints import AFTER_COMMIT, AFTER_EFFECT
from shared.publishing.uow import UnitOfWork
from tests.forked import fork
from tests.integration.world import Happened, World, happened, keys_of, take_effect

KEYS, EVENTS = 6, 90
BAD = 40
AT_ONCE = 3
EACH_ITS_OWN = {"batch_max": 1, "transactions_max": AT_ONCE}


def numbers_but(*left_out: int) -> list[int]:
    return [number for number in range(EVENTS) if number not in left_out]


async def test_retries_duplicates_and_a_bad_event_leave_one_effect_of_each_event_in_order_per_key(
    world: World,
) -> None:
    """Every seventh event fails at first: others of its key wait, or would overtake it."""
    failed: set[int] = set()
    running: Counter[str] = Counter()
    at_once: list[int] = []

    async def on_happened(event: Event[Happened], uow: UnitOfWork) -> None:
        number = event.data.number
        running[event.envelope.key] += 1
        try:
            assert running[event.envelope.key] == 1, "two of a key at once"
            at_once.append(running.total())
            await asyncio.sleep(0.001)  # others may come in between
            if number == BAD:
                raise BusinessError("no")
            take_effect(event, uow)
            if number >= 0 and number % 7 == 0 and number not in failed:
                failed.add(number)
                raise KeyError(f"{number}, at first")
        finally:
            running[event.envelope.key] -= 1

    events = [happened(number, f"k{number % KEYS}") for number in range(EVENTS)]
    await world.publish(*events[:50], *events[30:], *events[80:])
    async with world.consumer(on_happened, **EACH_ITS_OWN):
        await world.await_effects(EVENTS - 1)
        assert len(await world.await_dead_letters(1)) == 1
        await world.drained()
    effects = [(key, number) for key, number in await world.effects() if number >= 0]
    assert sorted(number for _, number in effects) == numbers_but(BAD)
    assert all(numbers == sorted(numbers) for numbers in keys_of(effects).values())
    assert 1 < max(at_once) <= AT_ONCE
    async with world.database.engine.connect() as connection:
        [(rows, transactions)] = await connection.execute(
            text("select count(*), count(distinct xmin::text) from effect")
        )
    assert rows == transactions, "each has a transaction of its own"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("place", [f"{AFTER_EFFECT}=kill@8", f"{AFTER_COMMIT}=kill"])
async def test_a_consumer_that_dies_between_its_transactions_is_followed_by_one_that_repeats_nothing(
    rabbit_world: World, place: str
) -> None:
    world = rabbit_world
    world.default_overrides.update(heartbeat_interval_s=0.5, heartbeat_ttl_s=2.0, **EACH_ITS_OWN)
    await world.publish(*(happened(number, f"k{number % KEYS}") for number in range(EVENTS)))
    values = orjson.dumps(world.setting_values(failpoints=place))
    process = await fork("tests.integration.dying", world.channel, values.decode())
    try:
        assert await process.wait(120) == -signal.SIGKILL
    finally:
        process.kill()
    committed = len(await world.effects())
    assert 0 < committed < EVENTS, "it died of something else"
    async with world.consumer():
        await world.await_effects(EVENTS)
    effects = await world.effects()
    assert sorted(number for _, number in effects) == list(range(EVENTS)), "lost or doubled"
    assert all(numbers == sorted(numbers) for numbers in keys_of(effects).values())
