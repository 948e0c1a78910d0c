"""Events through a real broker into the pipeline: single effects, poison, servers that fail under load."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from shared.broker.base import Message
from shared.dead_letter import headers as dead_letter
from shared.envelope import Envelope
from shared.errors import BusinessError
from shared.event import Event
from shared.publishing.uow import UnitOfWork, UnitsOfWork
from tests.integration.world import TYPE, Happened, World, eventually, happened, keys_of, take_effect

CLOUDEVENT = {"specversion": "1.0", "id": "1", "source": "/tests", "type": TYPE, "data": {"number": 1}}


async def test_the_same_wire_bytes_ten_times_have_one_effect(world: World) -> None:
    again = happened(1).encode()
    async with world.consumer():
        for _ in range(5):
            await world.publish(again, again)
        await world.publish(happened(2))
        await world.await_effects(2)
        await world.drained()
    assert await world.real_numbers() == [1, 2]
    assert await world.dead_letters() == []


POISON: dict[str, tuple[bytes, str]] = {
    "garbage": (b"\xff\x00not json", "UndecodableError"),
    "nothing at all": (b"", "UndecodableError"),
    "json that is no envelope": (b"[1, 2]", "UndecodableError"),
    "nested too deeply": (b"[" * 100_000, "UndecodableError"),
    "another specification": (orjson.dumps({**CLOUDEVENT, "specversion": "2.0"}), "UndecodableError"),
    "an id that is no text": (orjson.dumps({**CLOUDEVENT, "id": 7}), "UndecodableError"),
    "an id with a NUL": (orjson.dumps({**CLOUDEVENT, "id": "a\x00b"}), "UndecodableError"),
    "an unknown type": (orjson.dumps({**CLOUDEVENT, "type": "thing.unheard_of"}), "UnknownEventTypeError"),
    "a future schema version": (
        orjson.dumps({**CLOUDEVENT, "dataschema": "urn:tandem:thing.happened:2"}),
        "UnknownSchemaError",
    ),
    "data that breaks the schema": (orjson.dumps({**CLOUDEVENT, "data": {"number": "x"}}), "SchemaViolationError"),
    "no data": (orjson.dumps({**CLOUDEVENT, "data": None}), "SchemaViolationError"),
}


async def test_poison_is_put_aside_with_its_cause_and_the_stream_goes_on(world: World) -> None:
    async with world.consumer():
        number = 0
        for body, _ in POISON.values():
            await world.publish(happened(number), body, happened(number + 1))
            number += 2
        await world.await_effects(number)
        letters = await world.await_dead_letters(len(POISON))
        await world.drained()
    assert sorted(await world.real_numbers()) == list(range(number))
    causes = {letter.body: letter.headers[dead_letter.ERROR_TYPE] for letter in letters}
    assert causes == dict(POISON.values())
    for letter in letters:
        assert letter.headers[dead_letter.SUBSCRIBER] == "tester"
        assert letter.headers[dead_letter.CHANNEL] == world.channel
        assert letter.headers[dead_letter.ERROR_MESSAGE]
        assert letter.headers[dead_letter.POSITION]
    assert len(letters) == len(POISON)


async def test_a_body_of_two_megabytes_is_put_aside(rabbit_world: World) -> None:
    big = orjson.dumps({**CLOUDEVENT, "data": {"number": 1, "x": "x" * 2_000_000}})
    async with rabbit_world.consumer():
        await rabbit_world.publish(happened(1), big, happened(2))
        await rabbit_world.await_effects(2)
        [letter] = await rabbit_world.await_dead_letters(1)
        await rabbit_world.drained()
    assert letter.body == big
    assert letter.headers[dead_letter.ERROR_TYPE] == "UndecodableError"
    assert await rabbit_world.real_numbers() == [1, 2]


@pytest.mark.parametrize(
    "size",
    [1_048_000, 2_000_000, 20_000_000],
    ids=["as large as fits", "2 MB when unpacked", "20 MB when unpacked"],
)
async def test_what_another_client_squeezes_into_kafka_is_put_aside(kafka_world: World, size: int) -> None:
    """Our own producer refuses them; a record near the topic's limit plus our headers must still fit somewhere."""
    big = orjson.dumps({**CLOUDEVENT, "data": {"number": 1, "x": "x" * size}})
    broker = await kafka_world.publisher()
    servers = kafka_world.settings().kafka_bootstrap
    async with AIOKafkaProducer(
        bootstrap_servers=servers, max_request_size=64 * 1024 * 1024, compression_type="gzip"
    ) as foreign:
        await foreign.send_and_wait(f"{kafka_world.channel}-events", big, key=b"k")
    async with kafka_world.consumer():
        await kafka_world.publish(happened(1))
        await kafka_world.await_effects(1)
        [letter] = await broker.dead_letters(kafka_world.subscription)
    assert letter.headers[dead_letter.ERROR_TYPE] == "UndecodableError"
    assert big.startswith(letter.body)
    assert len(letter.body) == len(big) or letter.headers[dead_letter.BODY_CUT_FROM] == str(len(big))


async def test_a_message_with_headers_as_large_as_a_frame_takes_is_put_aside(rabbit_world: World) -> None:
    broker = await rabbit_world.publisher()
    headers = {f"h{index}": "x" * 1_000 for index in range(120)}
    async with rabbit_world.consumer():
        poison = Message(rabbit_world.channel, TYPE, "k", b"garbage", headers)
        assert await broker.publish([poison]) == []
        await rabbit_world.publish(happened(1))
        await rabbit_world.await_effects(1)
        [letter] = await rabbit_world.await_dead_letters(1)
    assert letter.body == b"garbage"
    assert letter.headers[dead_letter.HEADERS_LEFT_OUT] == "121"  # and the content type


async def test_ignored_types_and_settled_events_leave_no_letter(world: World) -> None:
    async with world.consumer():
        await world.publish(happened(1), happened(2, type="thing.ignored").encode(), happened(3))
        await world.await_effects(2)
        await world.drained()
    assert await world.real_numbers() == [1, 3]
    assert await world.dead_letters() == []


async def test_an_event_that_fails_costs_its_neighbours_nothing(world: World) -> None:
    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        if event.data.number % 20 == 7:
            raise BusinessError("sevens are impossible")
        if event.data.number % 20 == 13:
            raise ZeroDivisionError

    await world.publish(*(happened(number, key=f"key-{number % 5}") for number in range(100)))
    async with world.consumer(handle):
        await world.await_effects(90)
        letters = await world.await_dead_letters(10)
        await world.drained()
    good = [number for number in range(100) if number % 20 not in {7, 13}]
    assert sorted(await world.real_numbers()) == good
    dead = sorted(Envelope.decode(letter.body).data["number"] for letter in letters)
    assert dead == [7, 13, 27, 33, 47, 53, 67, 73, 87, 93]
    causes = [letter.headers[dead_letter.ERROR_TYPE] for letter in letters]
    assert sorted(causes) == ["BusinessError"] * 5 + ["ZeroDivisionError"] * 5


# -- servers that fail under load

COUNT = 400
KEYS = 7


async def load(world: World, count: int = COUNT) -> None:
    """Publish `count` events, numbered in order within each key, a few at a time."""
    for start in range(0, count, 20):
        await world.publish(*(happened(n, key=f"key-{n % KEYS}") for n in range(start, min(start + 20, count))))
        await asyncio.sleep(0.01)


async def assert_each_once_in_order(world: World, count: int = COUNT) -> None:
    await world.await_effects(count, deadline_s=120)
    await world.drained()
    effects = [(key, number) for key, number in await world.effects() if number >= 0]
    assert sorted(number for _, number in effects) == list(range(count)), "lost or doubled"
    for key, numbers in keys_of(effects).items():
        assert numbers == sorted(numbers), f"{key} out of order"
    assert await world.dead_letters() == []


async def test_redis_flushed_and_stopped_under_load_doubles_nothing(world: World) -> None:
    redis: Redis = Redis.from_url(world.settings().redis_url)
    async with world.consumer(redis_timeout_s=0.5):
        publishing = asyncio.create_task(load(world))
        await world.await_effects(50)
        await redis.flushall()
        await world.await_effects(100)
        await asyncio.to_thread(world.runtime.processes.stop, "redis")
        try:
            await publishing
            await load(world)  # every event a second time, under new ids: see below
            await world.await_effects(COUNT + COUNT // 2)
        finally:
            await asyncio.to_thread(world.runtime.processes.start, "redis")
        await world.await_effects(2 * COUNT, deadline_s=120)
        await world.drained()
    await redis.aclose()
    assert sorted(await world.real_numbers()) == sorted([*range(COUNT), *range(COUNT)])
    assert await world.count("inbox") == await world.count("effect")
    assert await world.dead_letters() == []


async def test_postgresql_restarted_under_load_loses_and_doubles_nothing(world: World) -> None:
    async with world.consumer():
        publishing = asyncio.create_task(load(world))
        await world.await_effects(50)
        await asyncio.to_thread(world.runtime.processes.restart, "postgres")
        await publishing
        await assert_each_once_in_order(world)


async def test_postgresql_killed_under_load_loses_and_doubles_nothing(world: World) -> None:
    async with world.consumer():
        publishing = asyncio.create_task(load(world))
        await world.await_effects(50)
        await asyncio.to_thread(world.runtime.processes.kill, "postgres")
        await asyncio.to_thread(world.runtime.processes.wait_ready, "postgres")
        await publishing
        await assert_each_once_in_order(world)


async def test_postgresql_that_hangs_under_load_loses_and_doubles_nothing(rabbit_world: World) -> None:
    """Its sockets stay open and nothing is answered: only time-outs tell."""
    world = rabbit_world
    async with world.consumer(
        units=UnitsOfWork(await world.opened_database(postgres_timeout_s=1.0), "tester", world.telemetry.spans)
    ):
        publishing = asyncio.create_task(load(world))
        await world.await_effects(50)
        world.runtime.processes.kill("postgres", signal.SIGSTOP)
        try:
            await publishing
            await asyncio.sleep(3)  # longer than the time-out
        finally:
            world.runtime.processes.kill("postgres", signal.SIGCONT)
        await assert_each_once_in_order(world)


async def test_redis_that_hangs_under_load_doubles_nothing_and_blocks_nothing_afterwards(world: World) -> None:
    """Claims that it carries out late, when nobody waits for the answer any more, are in nobody's way."""
    async with world.consumer(redis_timeout_s=0.3):
        publishing = asyncio.create_task(load(world))
        await world.await_effects(50)
        world.runtime.processes.kill("redis", signal.SIGSTOP)
        try:
            await world.await_effects(150)
        finally:
            world.runtime.processes.kill("redis", signal.SIGCONT)
        await publishing
        await assert_each_once_in_order(world)


async def test_two_consumers_that_come_and_go_share_the_stream_in_order(world: World) -> None:
    async with world.consumer():
        publishing = asyncio.create_task(load(world))
        await world.await_effects(30)
        async with world.consumer():
            await world.await_effects(120)
        async with world.consumer():
            await publishing
        await assert_each_once_in_order(world)


async def test_a_consumer_that_stops_finishes_or_gives_back_what_it_has(world: World) -> None:
    async def slowly(event: Event[Happened], uow: UnitOfWork) -> None:
        await asyncio.sleep(0.002)
        take_effect(event, uow)

    await load(world, 300)
    for _ in range(3):
        async with world.consumer(slowly, batch_max=20):
            before = len(await world.numbers())
            await world.await_effects(min(300, before + 20))

    async def all_settled() -> Any:
        async with world.consumer():
            return await world.await_effects(300)

    await eventually(all_settled, "the rest takes effect")
    async with world.consumer():
        await assert_each_once_in_order(world, 300)
