"""Fail points in their places: a consumer that dies at each of them is followed by one that repeats nothing."""

from __future__ import annotations

import signal

import orjson
import pytest

from shared.failpoints import AFTER_COMMIT, AFTER_EFFECT, BEFORE_EFFECT
from tests.forked import fork
from tests.integration.world import World, happened

EVENTS = 10


@pytest.mark.timeout(240)
@pytest.mark.parametrize("place", [BEFORE_EFFECT, AFTER_EFFECT, AFTER_COMMIT])
async def test_a_consumer_that_dies_there_leaves_one_effect_of_each_event(rabbit_world: World, place: str) -> None:
    world = rabbit_world
    world.default_overrides.update(heartbeat_interval_s=0.5, heartbeat_ttl_s=2.0)
    await world.publish(*(happened(number) for number in range(EVENTS)))
    values = orjson.dumps(world.setting_values(failpoints=f"{place}=kill"))
    process = await fork("tests.integration.dying", world.channel, values.decode())
    try:
        assert await process.wait(120) == -signal.SIGKILL
    finally:
        process.kill()
    committed = len(await world.effects())
    assert (committed > 0) == (place == AFTER_COMMIT), "it died somewhere else"
    async with world.consumer():
        await world.await_effects(EVENTS)
    assert sorted(await world.numbers()) == list(range(EVENTS)), "lost or doubled"


async def test_a_handler_that_is_told_to_fail_sends_its_event_to_the_dead_letters(rabbit_world: World) -> None:
    world = rabbit_world
    world.default_overrides.update(failpoints=f"handler:{happened(0).type}=raise*1")
    await world.publish(*(happened(number) for number in range(EVENTS)))
    async with world.consumer():
        await world.await_dead_letters(1)
        await world.await_effects(EVENTS - 1)
