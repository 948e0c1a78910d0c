"""An event that kills its consumer is found out, parked, and costs its neighbours nothing, on both brokers."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from shared.dead_letter import headers as dead_letter
from shared.envelope import Envelope
from tests.forked import Forked, fork
from tests.integration.dying import KILLER
from tests.integration.world import World, happened, keys_of

DELIVERIES_MAX = 2
NEIGHBOURS = 40
WAIT_S = 240.0


@pytest.mark.timeout(300)
async def test_an_event_that_kills_its_process_is_parked_and_its_neighbours_take_effect(world: World) -> None:
    options: dict[str, Any] = {
        "deliveries_max": DELIVERIES_MAX,
        "kafka_partitions": 1,  # so that all of them come in one batch
        "heartbeat_interval_s": 0.5,
        "heartbeat_ttl_s": 2.0,
    }
    world.default_overrides.update(options)
    events = [happened(number, key=f"key-{number % 4}") for number in range(NEIGHBOURS)]
    killer = happened(KILLER, key="key-1")
    await world.publish(*events[:20], killer, *events[20:])
    deaths = 0
    settled = asyncio.create_task(world.await_dead_letters(1, deadline_s=240))
    process = await start(world)
    try:
        while not settled.done():
            ended = asyncio.create_task(process.wait(WAIT_S))
            await asyncio.wait({ended, settled}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not settled.done():
                assert process.returncode == 9, "it did not die of the event"
                deaths += 1
                assert deaths <= DELIVERIES_MAX + 1, "the killer goes on killing"
                process = await start(world)
            ended.cancel()
        [letter] = await settled
        await world.await_effects(NEIGHBOURS)
    finally:
        settled.cancel()
        process.kill()
        await process.wait(WAIT_S)
    assert deaths >= DELIVERIES_MAX, "it was not given the deliveries that it may have"
    assert Envelope.decode(letter.body).id == killer.id
    assert letter.headers[dead_letter.ERROR_TYPE] == "AttemptsExhaustedError"
    effects = await world.effects()
    assert sorted(number for _, number in effects) == list(range(NEIGHBOURS)), "lost or doubled"
    for key, numbers in keys_of(effects).items():
        assert numbers == sorted(numbers), f"{key} out of order"
    assert len(await world.dead_letters()) == 1


async def start(world: World) -> Forked:
    values = orjson.dumps(world.setting_values())
    return await fork("tests.integration.dying", world.channel, values.decode())
