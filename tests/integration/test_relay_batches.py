"""What the relay takes of its outbox at once: bounded in bytes, and found without looking at the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest
from sqlalchemy import text

from shared.broker.base import Message, PublishFailure
from shared.publishing.outbox import insert_outbox, outbox_row
from tests.integration.test_relay import Counting, relay, true, until_empty
from tests.integration.world import World, eventually, happened


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

    monkeypatch.setattr("shared.publishing.relay.BATCH_BYTES_MAX", 10_000)
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
