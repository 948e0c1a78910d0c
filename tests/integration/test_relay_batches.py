"""What the relay takes of its outbox at once: bounded in bytes, and found without looking at the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import ClassVar

import asyncpg
import orjson
import pytest
from sqlalchemy import text

from shared.broker.base import Broker, Message, PublishFailure
from shared.errors import UnavailableError
from shared.publishing.outbox import insert_outbox
from shared.publishing.outbox_reader import ranges_of
from tests.integration.test_relay import Counting, relay, true, until_empty
from tests.integration.world import World, eventually, happened
from tests.outbox_rows import outbox_row


async def test_large_events_are_few_at_once_and_one_that_is_larger_goes_alone(
    rabbit_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number alone would bound nothing: 500 of a megabyte each are half a gigabyte."""

    class Weighs(Counting):
        weights: ClassVar[list[int]] = []

        async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
            self.weights.append(sum(len(message.body) for message in messages))
            self.published += len(messages)
            return []

    monkeypatch.setattr("shared.publishing.outbox_reader.BATCH_BYTES_MAX", 10_000)
    sizes = [4_000, 4_000, 4_000, 30_000, 10, 10, 9_000, 9_000]
    rows = [
        outbox_row(rabbit_world.channel, happened(number, data={"pad": "x" * size}))
        for number, size in enumerate(sizes)
    ]
    async with rabbit_world.database.transaction() as connection:
        await connection.execute(insert_outbox, rows)
    weighs = Weighs(await rabbit_world.publisher())
    async with relay(rabbit_world, weighs):
        await until_empty(rabbit_world)
    assert weighs.published == len(sizes)
    assert len(weighs.weights) == 5
    assert [weight > 30_000 for weight in weighs.weights if weight > 10_000] == [True]


async def test_a_backlog_that_was_never_counted_is_read_in_the_order_of_its_index(rabbit_world: World) -> None:
    """By the statistics that it has then, PostgreSQL would read and sort all of it for every batch."""

    class Takes(Counting):
        batches = 0

        async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
            self.published += len(messages)
            self.batches += 1
            return []

    scans = text("select seq_scan, coalesce(idx_scan, 0) from pg_stat_user_tables where relname = 'outbox'")
    backlog = text(
        "insert into outbox (shard, channel, type, key, event_id, body)"
        " select 0, 'order', 'order.placed', n::text, n::text, repeat('x', 500)::bytea"
        " from generate_series(1, 5000) as n"
    )

    async def counted() -> tuple[int, int]:
        async with rabbit_world.database.engine.connect() as connection:
            seq_scans, index_scans = (await connection.execute(scans)).one()
        return seq_scans, index_scans

    async with rabbit_world.database.transaction() as connection:
        await connection.execute(backlog)
    before, by_index = await counted()
    takes = Takes(await rabbit_world.publisher())
    async with relay(rabbit_world, takes):
        await eventually(lambda: true(takes.published == 5_000), "all is published")

    async def told() -> bool:
        return (await counted())[1] > by_index

    await eventually(told, "the relay's session has told its statistics")
    # Sessions of before may tell of a look of theirs only now; reading it all for every batch would be more.
    assert (await counted())[0] - before < takes.batches / 2
    assert takes.batches >= 8


# -- while a full batch is published the next one is read


def outbox_rows(world: World, numbers: Iterable[int], key: str | None = None) -> list[dict[str, object]]:
    """Each under a key of its own, or all under one."""
    return [outbox_row(world.channel, happened(number, key or f"key-{number}")) for number in numbers]


async def wait_there(world: World, rows: Sequence[dict[str, object]]) -> None:
    async with world.database.transaction() as connection:
        await connection.execute(insert_outbox, rows)


class Watches(Counting):
    """Whatever is published, and how many rows the outbox has when each batch is confirmed."""

    def __init__(self, world: World, broker: Broker) -> None:
        super().__init__(broker)
        self.world = world
        self.batches: list[list[bytes]] = []
        self.left: list[int] = []

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        self.published += len(messages)
        self.batches.append([message.body for message in messages])
        self.left.append(await self.world.count("outbox"))
        return []


async def test_nothing_is_published_twice_or_left_out_while_batches_are_read_ahead(rabbit_world: World) -> None:
    world = rabbit_world
    rows = outbox_rows(world, range(47))
    await wait_there(world, rows)
    watches = Watches(world, await world.publisher())
    async with relay(world, watches, relay_batch_max=5):
        await until_empty(world)
    assert [body for batch in watches.batches for body in batch] == [row["body"] for row in rows]
    assert [len(batch) for batch in watches.batches] == [5] * 9 + [2]
    too_few = [left for number, left in enumerate(watches.left) if left < 47 - 5 * number]
    assert too_few == [], "deleted before it was confirmed"


async def test_what_is_committed_late_with_an_earlier_place_is_published_before_what_follows_it(
    rabbit_world: World,
) -> None:
    """A transaction has taken its places, and commits when a batch with later ones is being published."""
    world = rabbit_world

    class Commits(Watches):
        async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
            if not self.batches:
                await late.commit()
                await wait_there(world, outbox_rows(world, range(200, 210), "late"))
            return await super().publish(messages)

    engine = world.database.engine
    async with engine.connect() as slow:
        late = await slow.begin()
        await slow.execute(insert_outbox, outbox_rows(world, range(100, 103), "late"))
        await wait_there(world, outbox_rows(world, range(10)))
        watches = Commits(world, await world.publisher())
        async with relay(world, watches, relay_batch_max=5):
            await until_empty(world)
    published = [body for batch in watches.batches for body in batch]
    assert len(published) == len(set(published)) == 23
    numbers = [orjson.loads(body)["data"]["number"] for body in published]
    assert [number for number in numbers if number >= 100] == [*range(100, 103), *range(200, 210)]


async def test_behind_a_batch_that_failed_nothing_that_was_read_ahead_overtakes_it(rabbit_world: World) -> None:
    world = rabbit_world

    class Refuses(Watches):
        async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
            first = not self.batches
            await super().publish(messages)
            if not first:
                return []
            return [PublishFailure(message, UnavailableError("planted")) for message in messages[2:]]

    rows = outbox_rows(world, range(12), "one")
    await wait_there(world, rows)
    watches = Refuses(world, await world.publisher())
    async with relay(world, watches, relay_batch_max=5):
        await until_empty(world)
    confirmed = [*watches.batches[0][:2], *(body for batch in watches.batches[1:] for body in batch)]
    assert confirmed == [row["body"] for row in rows]


async def test_a_relay_that_is_stopped_leaves_nothing_that_is_confirmed(
    rabbit_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rests between two looks then, of which the second would delete it."""
    world = rabbit_world

    class Tells(Watches):
        async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
            await super().publish(messages)
            await asyncio.sleep(0.5)  # so that it rests as long
            confirmed.set()
            return []

    confirmed = asyncio.Event()
    await wait_there(world, outbox_rows(world, range(40)))
    monkeypatch.setattr("shared.publishing.relay._REST_MAX_S", 60.0)
    async with relay(world, Tells(world, await world.publisher())):
        await asyncio.wait_for(confirmed.wait(), 60)
        await asyncio.sleep(0.05)
    assert await world.count("outbox") == 0


def test_places_are_told_as_the_fewest_ranges() -> None:
    assert ranges_of([]) == []
    assert ranges_of([7]) == [asyncpg.Range(7, 8)]
    assert ranges_of([3, 1, 2, 9, 3, 10, 12]) == [asyncpg.Range(1, 4), asyncpg.Range(9, 11), asyncpg.Range(12, 13)]
