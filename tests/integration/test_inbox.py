"""The inbox: its row is the fence that keeps an effect single."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from sqlalchemy import text

from shared.consuming import inbox
from tests.integration.world import World, eventually, happened

_WAITING = text(
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
)


async def test_an_event_is_known_after_the_first_time_to_its_subscriber_alone(rabbit_world: World) -> None:
    events = [happened(1), happened(2)]
    keys = {(event.source, event.id) for event in events}
    async with rabbit_world.database.transaction() as connection:
        assert not await inbox.record(connection, "s", events)
        assert await inbox.record(connection, "s", [*events, happened(3)]) == keys
        assert not await inbox.record(connection, "other", events)
        assert await inbox.record(connection, "s", events) == keys


async def test_so_is_one_by_itself_however_often_its_statement_was_seen(rabbit_world: World) -> None:
    async with rabbit_world.database.transaction() as connection:
        for number in range(4):
            event = happened(number)
            assert not await inbox.record(connection, "s", [event])
            assert await inbox.record(connection, "s", [event]) == {(event.source, event.id)}
            assert not await inbox.record(connection, "other", [event])


async def test_equal_ids_of_different_sources_are_different_events(rabbit_world: World) -> None:
    one, other = happened(1, id="7", source="/one"), happened(1, id="7", source="/other")
    async with rabbit_world.database.transaction() as connection:
        assert not await inbox.record(connection, "s", [one, other])
        assert await inbox.record(connection, "s", [happened(1, id="7"), other]) == {("/other", "7")}


async def test_a_concurrent_transaction_waits_and_finds_the_row_taken(rabbit_world: World) -> None:
    event = happened(1)

    async def second() -> Collection[tuple[str, str]]:
        async with rabbit_world.database.transaction() as connection:
            return await inbox.record(connection, "s", [event])

    async with rabbit_world.database.transaction() as connection:
        assert not await inbox.record(connection, "s", [event])
        task = asyncio.create_task(second())
        await _until_somebody_waits_for_a_lock(rabbit_world)
        assert not task.done()
    assert await task == {(event.source, event.id)}


async def test_a_concurrent_transaction_gets_the_row_when_the_first_one_rolls_back(rabbit_world: World) -> None:
    event = happened(1)

    async def second() -> Collection[tuple[str, str]]:
        async with rabbit_world.database.transaction() as connection:
            return await inbox.record(connection, "s", [event])

    async with rabbit_world.database.engine.connect() as connection, connection.begin() as transaction:
        await inbox.record(connection, "s", [event])
        task = asyncio.create_task(second())
        await _until_somebody_waits_for_a_lock(rabbit_world)
        await transaction.rollback()
    assert not await task


async def test_two_processes_with_the_same_events_in_other_orders_do_not_deadlock(rabbit_world: World) -> None:
    events = [happened(number) for number in range(200)]

    async def record(order: int) -> int:
        async with rabbit_world.database.transaction() as connection:
            return len(await inbox.record(connection, "s", events[::order]))

    counts = await asyncio.gather(*(record(order) for order in (1, -1) * 4))
    assert sorted(counts) == [0] + [200] * 7


async def test_a_forgotten_row_is_not_known_any_more(rabbit_world: World) -> None:
    events = [happened(1), happened(2)]
    async with rabbit_world.database.transaction() as connection:
        await inbox.record(connection, "s", events)
        await inbox.record(connection, "other", events)
        await inbox.forget(connection, "s", events[:1])
        assert await inbox.record(connection, "s", events) == {(events[1].source, events[1].id)}
        assert len(await inbox.record(connection, "other", events)) == 2


async def test_pruning_takes_old_rows_only_and_no_more_than_the_limit(rabbit_world: World) -> None:
    old, fresh = [happened(number) for number in range(7)], [happened(number) for number in range(3)]
    async with rabbit_world.database.transaction() as connection:
        await inbox.record(connection, "s", old)
        await connection.execute(text("update inbox set recorded_at = now() - interval '1 hour'"))
        await inbox.record(connection, "s", fresh)
        assert await inbox.prune(connection, retention_s=600, limit=5) == 5
        assert await inbox.prune(connection, retention_s=600, limit=5) == 2
        assert await inbox.prune(connection, retention_s=600, limit=5) == 0
        assert len(await inbox.record(connection, "s", fresh)) == len(fresh)


async def _until_somebody_waits_for_a_lock(world: World) -> None:
    async def waits() -> bool:
        async with world.database.engine.connect() as connection:
            return bool((await connection.execute(_WAITING)).scalar_one())

    await eventually(waits, "the second transaction waits for the first")
