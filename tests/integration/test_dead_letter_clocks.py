"""Delays by one clock, PostgreSQL's: those of the processes may be wrong by hours."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from faults.clock_step import library
from shared.dead_letter import headers as dead_letter
from shared.dead_letter.headers import Kind
from shared.errors import DelayError
from shared.event import Event
from shared.publishing.uow import UnitOfWork
from tests.integration.letters import letters_of
from tests.integration.world import Happened, World, happened, take_effect

HOUR = timedelta(hours=1)


@pytest.mark.timeout(300)
async def test_a_service_whose_clock_is_an_hour_back_gives_back_in_time(
    rabbit_world: World,
) -> None:
    runs = 0

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        take_effect(event, uow)
        if runs < 3:
            raise DelayError("away", delay_s=0.2)

    an_hour_back = {
        "LD_PRELOAD": str(await asyncio.to_thread(library)),
        "FAKETIME": "-3600",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    async with letters_of(rabbit_world, environment=an_hour_back) as letters, rabbit_world.consumer(handle):
        await rabbit_world.publish(happened(1))
        [row] = await letters.until(1, "resolved")
    assert datetime.now(UTC) - row["first_seen_at"] < HOUR / 2
    assert await rabbit_world.numbers() == [1]


@pytest.mark.timeout(300)
async def test_a_delay_is_as_long_as_a_subscriber_says_whatever_its_clock_says(world: World) -> None:
    broker = await world.publisher()
    now = datetime.now(UTC)

    async def put_aside(number: int, **headers: str) -> None:
        [delivery] = world.deliver([happened(number)])
        said = {f"tandem-{name.replace('_', '-')}": text for name, text in headers.items()}
        await broker.publish_dead_letter(
            world.subscription, delivery, {dead_letter.KIND: Kind.DELAYED.value, **said}
        )

    await put_aside(0, due_at=(now - HOUR).isoformat(), delay_s="600.000")
    await put_aside(1, due_at=(now + HOUR).isoformat(), delay_s="600.000")
    await put_aside(2, due_at=(now + HOUR).isoformat())  # as an earlier version says it
    async with letters_of(world) as letters:
        rows = await letters.until(3, "pending")
        assert sorted(row["due_at"] - row["first_seen_at"] for row in rows)[:2] == [timedelta(seconds=600)] * 2
        assert max(row["due_at"] for row in rows) == now + HOUR
