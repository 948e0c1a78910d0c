"""Events that are handed to the relay by who commits beside it: published without a look, in order per key."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from shared.broker.base import Message, PublishFailure
from shared.publishing import Leading, UnitsOfWork
from shared.publishing.outbox import insert_outbox
from shared.publishing.outbox_reader import OutboxReader
from shared.publishing.relay import Relay
from tests.integration.test_relay import NEVER_S, until_empty
from tests.integration.test_relay import running as relay_running
from tests.integration.world import INSERT_EFFECT, World, eventually, happened
from tests.outbox_rows import outbox_row

LOCK = text("select pg_advisory_xact_lock(hashtext(:key))")
"""Stands for the row that a use case locks before it publishes what has become of it."""


class Beside:
    """A relay that leads, and units of work in its process and in another."""

    def __init__(self, world: World, leading: Leading, looks: list[int]) -> None:
        self.world = world
        self.leading = leading
        self.looks = looks
        """How many rows each look found."""
        self.here = UnitsOfWork(world.database, "here", world.telemetry.spans, leading)
        self.elsewhere = UnitsOfWork(world.database, "elsewhere", world.telemetry.spans)
        self.published: list[tuple[str, int]] = []
        """(key, number) in the order of their publication."""

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        self.published += [(message.key, orjson.loads(message.body)["data"]["number"]) for message in messages]
        return await (await self.world.publisher()).publish(messages)

    async def commit(self, units: UnitsOfWork, key: str, number: int) -> None:
        async with units.begin() as uow:
            uow.publish(self.world.data(number=number), subject=key)

    async def commit_unheard(self, key: str, number: int) -> None:
        """As another process does, whose notification has not arrived yet."""
        async with self.world.database.transaction() as connection:
            await connection.execute(insert_outbox, [outbox_row(self.world.channel, happened(number, key))])

    async def until_published(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.published) >= count

        await eventually(enough, f"{count} are published", interval_s=0.005)

    async def until_it_stands_by(self) -> None:
        async def stands_by() -> bool:
            return self.leading.offer([{"shard": 0, "body": b""}]) is not None

        await eventually(stands_by, "the relay stands by", interval_s=0.005)


@asynccontextmanager
async def relay_beside(world: World, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> AsyncIterator[Beside]:
    looks: list[int] = []
    next_rows = OutboxReader.next

    async def counted(self: OutboxReader, *arguments: Any) -> Any:
        rows = await next_rows(self, *arguments)
        looks.append(len(rows))
        return rows

    monkeypatch.setattr(OutboxReader, "next", counted)
    beside = Beside(world, Leading(1), looks)
    await world.publisher()
    settings = world.settings(**{"relay_poll_interval_s": NEVER_S, **overrides})
    async with relay_running(Relay(settings, beside, world.telemetry, leading=beside.leading)):
        await beside.until_it_stands_by()
        yield beside


async def test_a_lone_event_is_published_without_a_look_and_leaves_the_outbox(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay_beside(world, monkeypatch) as beside, world.consumer():
        for number in range(5):
            async with beside.here.begin() as uow:  # a plain insert, which publishes in the same statement
                uow.tell(INSERT_EFFECT, {"event_id": "-", "key": "told", "number": -1})
                uow.publish(world.data(number=number), subject=f"key-{number}")
            await beside.until_published(number + 1)
        async with beside.here.begin() as uow:  # a transaction, with a statement of its own for the event
            await uow.connection.execute(LOCK, {"key": "key-5"})
            uow.publish(world.data(number=5), subject="key-5")
        await beside.until_published(6)
        await until_empty(world)
        assert beside.looks == [0]
        await world.await_effects(11)
    effects = Counter(await world.numbers())
    assert effects == {-1: 5, **dict.fromkeys(range(6), 1)}


async def test_an_event_waits_for_one_of_its_key_that_the_relay_has_not_heard_of(
    rabbit_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay_beside(rabbit_world, monkeypatch) as beside:
        await beside.commit_unheard("a", 1)
        await beside.commit(beside.here, "b", 1)
        await beside.until_published(1)
        assert beside.published == [("b", 1)], "of another key, there is none before it"
        await beside.commit(beside.here, "a", 2)
        await beside.until_published(3)
        await until_empty(rabbit_world)
    assert beside.published == [("b", 1), ("a", 1), ("a", 2)]
    assert beside.looks[:2] == [0, 2]


async def test_an_event_waits_for_one_that_was_committed_while_its_transaction_waited_for_the_lock(
    rabbit_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def second() -> None:
        async with beside.here.begin() as uow:
            await uow.connection.execute(LOCK, {"key": "a"})
            uow.publish(rabbit_world.data(number=2), subject="a")

    async with relay_beside(rabbit_world, monkeypatch) as beside:
        async with rabbit_world.database.transaction() as connection:
            await connection.execute(LOCK, {"key": "a"})
            waiting = asyncio.create_task(second())
            await connection.execute(insert_outbox, [outbox_row(rabbit_world.channel, happened(1, "a"))])
            await eventually(lambda: waits_for_a_lock(rabbit_world), "it waits")
        await waiting
        await beside.until_published(2)
    assert beside.published == [("a", 1), ("a", 2)]


async def waits_for_a_lock(world: World) -> bool:
    query = text("select count(*) from pg_locks where locktype = 'advisory' and not granted")
    async with world.database.engine.connect() as connection:
        return bool((await connection.execute(query)).scalar_one())


async def test_with_much_in_the_outbox_nothing_is_handed_over(
    rabbit_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay_beside(rabbit_world, monkeypatch) as beside:
        for number in range(32):
            await beside.commit_unheard(f"key-{number}", number)
        await beside.commit(beside.here, "another", 32)
        await until_empty(rabbit_world)
    assert beside.published == [*((f"key-{number}", number) for number in range(32)), ("another", 32)]


async def test_what_one_unit_publishes_before_it_is_done_may_be_undone_and_is_not_handed_over(
    rabbit_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay_beside(rabbit_world, monkeypatch) as beside:
        async with beside.here.begin() as uow:
            savepoint = await uow.connection.begin_nested()
            uow.publish(rabbit_world.data(number=1), subject="a")
            await uow.flush()
            await savepoint.rollback()
        async with beside.here.begin() as uow:
            savepoint = await uow.connection.begin_nested()
            uow.publish(rabbit_world.data(number=2), subject="a")
            await uow.flush()
            await savepoint.rollback()
            uow.publish(rabbit_world.data(number=3), subject="a")
        await beside.until_published(1)
        await until_empty(rabbit_world)
    assert (beside.published, beside.looks[:2]) == ([("a", 3)], [0, 0])


async def test_processes_that_publish_under_the_same_keys_keep_each_key_s_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them leads. Each locks the key, takes the key's next number and publishes it."""
    numbers: Counter[str] = Counter()

    async def work(units: UnitsOfWork, count: int) -> None:
        for turn in range(count):
            key = f"key-{turn % 4}"
            async with units.begin() as uow:
                await uow.connection.execute(LOCK, {"key": key})
                numbers[key] += 1
                uow.publish(world.data(number=numbers[key]), subject=key)
            await asyncio.sleep(0.003 if units is beside.here else 0.007)

    async with relay_beside(world, monkeypatch) as beside:
        await asyncio.gather(work(beside.here, 120), work(beside.elsewhere, 60))
        await until_empty(world)
    by_key = {key: [number for of, number in beside.published if of == key] for key in numbers}
    assert by_key == {key: [*range(1, count + 1)] for key, count in numbers.items()}
    found = sum(beside.looks)
    assert 0 < found < sum(numbers.values()), f"{found} were found by looks, the others handed over"
