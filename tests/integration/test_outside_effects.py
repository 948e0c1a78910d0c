"""Handlers with effects outside the database: an event, a transaction, a few at once, in order per key."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from shared.broker.base import Settlement
from shared.consuming.intake import OUTSIDE_EFFECTS_IN_FLIGHT_MAX
from shared.errors import BusinessError, UnavailableError
from shared.event import Event
from shared.publishing.uow import UnitOfWork
from tests.integration.world import Happened, World, happened, keys_of, take_effect

ACK, RETRY = Settlement.ACK, Settlement.RETRY
CONCURRENCY = 3


class Outside:
    """Something outside: it remembers what was done, in what order, and how much of it at once."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []
        self.running: Counter[str] = Counter()
        self.at_once_max = 0
        self.at_once_per_key_max = 0
        self.failures: dict[int, Exception] = {}

    async def act(self, event: Event[Happened], uow: UnitOfWork) -> None:
        key = event.envelope.key
        self.running[key] += 1
        self.at_once_max = max(self.at_once_max, self.running.total())
        self.at_once_per_key_max = max(self.at_once_per_key_max, self.running[key])
        try:
            await asyncio.sleep(0.001)  # others may come in between
            if event.data.number in self.failures:
                raise self.failures[event.data.number]
            take_effect(event, uow)
            self.done.append((key, event.data.number))
        finally:
            self.running[key] -= 1


@pytest.fixture
def outside(world: World) -> Outside:
    world.subscriber_options = {"outside_effects": True, "concurrency": CONCURRENCY}
    return Outside()


@pytest.fixture
def outside_rabbit(rabbit_world: World) -> Outside:
    rabbit_world.subscriber_options = {"outside_effects": True, "concurrency": CONCURRENCY}
    return Outside()


async def test_a_stream_is_worked_off_a_few_at_once_and_in_order_per_key(world: World, outside: Outside) -> None:
    await world.publish(*(happened(number, f"k{number % 7}") for number in range(140)))
    async with world.consumer(outside.act):
        await world.await_effects(140)
        await world.drained()
    done = [(key, number) for key, number in outside.done if number >= 0]
    assert len(done) == len(set(done)) == 140, "each was done once"
    assert all(numbers == sorted(numbers) for numbers in keys_of(done).values())
    assert 1 < outside.at_once_max <= CONCURRENCY
    assert outside.at_once_per_key_max == 1


async def test_what_fails_repeats_nobody_elses_effect(rabbit_world: World, outside_rabbit: Outside) -> None:
    outside = outside_rabbit
    outside.failures[4] = BusinessError("no")
    pipeline = await rabbit_world.pipeline(outside.act)
    batch = rabbit_world.deliver([happened(number, f"k{number % 3}") for number in range(9)])
    assert await pipeline(batch) == [ACK] * 9
    assert sorted(number for _, number in outside.done) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert sorted(await rabbit_world.numbers()) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert len(await rabbit_world.await_dead_letters(1)) == 1


async def test_a_lost_server_sends_back_what_has_not_begun_with_the_order_kept(
    rabbit_world: World, outside_rabbit: Outside
) -> None:
    outside = outside_rabbit
    rabbit_world.subscriber_options["concurrency"] = 1
    outside.failures[2] = UnavailableError("PostgreSQL is away")
    pipeline = await rabbit_world.pipeline(outside.act, outage_hold_s=0.05)
    events = [happened(0, "a"), happened(1, "b"), happened(2, "a"), happened(3, "a"), happened(4, "c")]
    answers = await pipeline(rabbit_world.deliver(events))
    assert answers[2:4] == [RETRY, RETRY], "what follows it under its key waits for it"
    outside.failures.clear()
    left = [event for event, answer in zip(events, answers, strict=True) if answer is RETRY]
    patient = await rabbit_world.pipeline(outside.act)  # 0.05 s need not be enough for all of them
    assert await patient(rabbit_world.deliver(left)) == [ACK] * len(left)
    assert keys_of(outside.done) == {"a": [0, 2, 3], "b": [1], "c": [4]}


async def test_a_repeated_event_is_not_done_again(rabbit_world: World, outside_rabbit: Outside) -> None:
    pipeline = await rabbit_world.pipeline(outside_rabbit.act)
    events = [happened(number, f"k{number}") for number in range(5)]
    for _ in range(2):
        assert await pipeline(rabbit_world.deliver(events)) == [ACK] * 5
    assert len(outside_rabbit.done) == 5


async def test_no_more_is_in_flight_than_may_be_repeated(rabbit_world: World, outside_rabbit: Outside) -> None:
    subscription = (await rabbit_world.pipeline(outside_rabbit.act)).subscription
    assert subscription.in_flight_max == OUTSIDE_EFFECTS_IN_FLIGHT_MAX
    assert subscription.batch_max <= OUTSIDE_EFFECTS_IN_FLIGHT_MAX


async def test_a_subscription_with_a_limited_rate_takes_a_second_s_worth_at_once_and_everything_in_the_end(
    world: World,
) -> None:
    rate = {f"tester.{world.channel}": 50.0}
    await world.publish(*(happened(number) for number in range(120)))
    async with world.consumer(rate_limit_per_s=rate) as pipeline:
        assert (pipeline.subscription.batch_max, pipeline.subscription.in_flight_max) == (50, 100)
        assert await world.await_effects(120) == list(range(120))
