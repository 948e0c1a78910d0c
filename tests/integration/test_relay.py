"""The relay: what is committed is published, in order per key, whoever dies in between; the outbox empties."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from shared.broker.base import Broker, Message, PublishFailure
from shared.errors import UnavailableError
from shared.publishing import Leading, UnitsOfWork
from shared.publishing.outbox import insert_outbox
from shared.publishing.relay import Relay
from shared.publishing.sending import STANDS_STILL_S
from tests.integration.test_unit_of_work import notifications
from tests.integration.world import Happened, World, eventually, happened, keys_of
from tests.outbox_rows import outbox_row

NEVER_S = 3_600.0


class Counting:
    """The adapter, counting what is published through it."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.published = 0

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        self.published += len(messages)
        return await self.broker.publish(messages)


class LosesTrackOnce(Counting):
    """The driver's complaint comes out of what a relay does as its leader, once."""

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        if not self.published:
            self.published += 1
            raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")
        return await super().publish(messages)


class StopsAfterPublishing(Counting):
    """The broker has everything, the relay never hears of it: as if it were killed here."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self.reached = asyncio.Event()

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        assert await super().publish(messages) == []
        self.reached.set()
        await asyncio.Event().wait()
        return []


@asynccontextmanager
async def relay(world: World, broker: Any = None, shard: int = 0, **overrides: Any) -> AsyncIterator[Any]:
    """A relay that runs until the block is left; yields the broker that it publishes through."""
    counting = broker or Counting(await world.publisher())
    async with running(Relay(world.settings(**overrides), counting, world.telemetry, shard)):
        yield counting


@asynccontextmanager
async def running(one: Relay) -> AsyncIterator[None]:
    """Inside, the relay runs; a test whose relay has died is told so at once, and waits for nothing."""
    test = asyncio.current_task()
    assert test is not None
    task = asyncio.create_task(one.run())

    def end_test(_: object) -> None:
        test.cancel()

    task.add_done_callback(end_test)
    try:
        yield
    finally:
        task.remove_done_callback(end_test)
        assert not task.done(), task.exception()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def commit(world: World, numbers: Sequence[int], keys: int = 3, data: type[Happened] | None = None) -> None:
    """One transaction per event, as a service does."""
    for number in numbers:
        async with world.units.begin() as uow:
            uow.publish((data or world.data)(number=number), subject=f"key-{number % keys}")


async def until_empty(world: World, rest: int = 0, deadline_s: float = 60) -> None:
    async def empty() -> bool:
        return await world.count("outbox") == rest

    await eventually(empty, f"the outbox is down to {rest}", deadline_s)


async def until_it_waits(world: World) -> None:
    """A relay has found nothing more to send and listens."""

    async def waits() -> bool:
        query = text(
            "select count(*) from pg_stat_activity where application_name like 'relay-%' and state = 'idle'"
            " and query like '%from outbox%' and now() - state_change > interval '50 ms'"
        )
        async with world.database.engine.connect() as connection:
            return bool((await connection.execute(query)).scalar_one())

    await eventually(waits, "the relay waits")


async def true(condition: bool) -> bool:
    return condition


def in_order(effects: list[tuple[str, int]]) -> bool:
    return all(numbers == sorted(numbers) for numbers in keys_of(effects).values())


async def test_what_is_committed_arrives_once_in_order_and_the_outbox_empties(world: World) -> None:
    await world.publisher()
    await commit(world, range(30))
    async with relay(world) as sent, world.consumer():
        await commit(world, range(30, 60))
        await world.await_effects(60)
        await until_empty(world)
    effects = await world.effects()
    assert sorted(number for _, number in effects) == list(range(60))
    assert in_order(effects)
    assert sent.published == 60


async def test_a_commit_wakes_the_relay(world: World) -> None:
    """Polling alone would take an hour."""
    async with relay(world, relay_poll_interval_s=NEVER_S), world.consumer():
        await until_it_waits(world)
        for number in range(5):
            await commit(world, [number])
            await world.await_effects(number + 1)


async def test_who_commits_beside_the_relay_that_leads_wakes_it_and_notifies_nobody(rabbit_world: World) -> None:
    world, leading = rabbit_world, Leading(1)
    units = UnitsOfWork(world.database, "tester", world.telemetry.spans, leading)
    settings = world.settings(relay_poll_interval_s=NEVER_S)
    one = Relay(settings, await world.publisher(), world.telemetry, leading=leading)
    async with world.consumer(), notifications(world) as heard, running(one):
        await until_it_waits(world)
        for number in range(3):
            async with units.begin() as uow:
                uow.publish(world.data(number=number), subject="a")
            await world.await_effects(number + 1)
    assert heard == []
    async with notifications(world) as heard, units.begin() as uow:
        uow.publish(world.data(number=3), subject="a")
    assert heard == ["outbox"], "it leads no more"


async def test_polling_finds_what_nobody_was_notified_of(world: World) -> None:
    async with relay(world, relay_poll_interval_s=0.2), world.consumer():
        await until_it_waits(world)
        async with world.database.transaction() as connection:
            await connection.execute(insert_outbox, [outbox_row(world.channel, happened(7))])
        assert await world.await_effects(1) == [7]


async def test_a_relay_that_dies_between_publish_and_delete_doubles_deliveries_not_effects(world: World) -> None:
    await commit(world, range(20))
    dying = StopsAfterPublishing(await world.publisher())
    async with world.consumer():
        async with relay(world, dying):
            await asyncio.wait_for(dying.reached.wait(), 60)
            await world.await_effects(20)
        assert await world.count("outbox") == 20, "it must not delete before it knows"
        async with relay(world) as successor:
            await until_empty(world)
        assert successor.published == 20
        await world.drained()
    assert sorted(await world.real_numbers()) == list(range(20))
    assert await world.dead_letters() == []


async def test_of_two_relays_one_leads_and_the_other_takes_over_when_it_dies(world: World) -> None:
    async with world.consumer():
        async with relay(world) as first:
            await until_it_waits(world)
            async with relay(world) as second:
                await commit(world, range(10))
                await world.await_effects(10)
                await until_empty(world)
                assert (first.published, second.published) == (10, 0)
                await terminate_leader(world)  # its session ends, as when its process does
                await commit(world, range(10, 20))
                await world.await_effects(20)
                await until_empty(world)
        await world.drained()
    effects = [effect for effect in await world.effects() if effect[1] >= 0]
    assert sorted(number for _, number in effects) == list(range(20))
    assert in_order(effects)


async def test_a_standby_relay_takes_over_from_one_that_is_gone(rabbit_world: World) -> None:
    async with rabbit_world.consumer():
        leader = asyncio.create_task(
            Relay(rabbit_world.settings(), await rabbit_world.publisher(), rabbit_world.telemetry).run()
        )
        await until_it_waits(rabbit_world)
        async with relay(rabbit_world) as standby:
            leader.cancel()
            await commit(rabbit_world, range(5))
            await rabbit_world.await_effects(5)
            assert standby.published == 5


async def test_a_session_that_the_driver_lost_track_of_is_replaced(rabbit_world: World) -> None:
    """asyncpg may say so where a server ends a session in the midst of an answer."""
    async with rabbit_world.consumer(), relay(rabbit_world, LosesTrackOnce(await rabbit_world.publisher())):
        await commit(rabbit_world, range(5))
        await rabbit_world.await_effects(5)


async def terminate_leader(world: World) -> None:
    async with world.database.transaction() as connection:
        await connection.execute(
            text("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted")
        )


async def test_shards_share_the_work_and_keep_each_keys_order(rabbit_world: World) -> None:
    await rabbit_world.publisher()
    await commit(rabbit_world, range(100), keys=20)
    async with (
        rabbit_world.consumer(),
        relay(rabbit_world, shard=0, relay_shards=2) as one,
        relay(rabbit_world, shard=1, relay_shards=2) as other,
    ):
        await rabbit_world.await_effects(100)
        await until_empty(rabbit_world)
    assert one.published + other.published == 100
    assert min(one.published, other.published) > 0
    assert in_order(await rabbit_world.effects())


async def test_a_relay_that_believes_what_was_never_confirmed_is_found_out(rabbit_world: World) -> None:
    """A test of the tests above: planted, a broker that confirms and forgets; its loss is seen."""

    class Liar(Counting):
        async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
            return []

    async with rabbit_world.consumer(), relay(rabbit_world, Liar(await rabbit_world.publisher())):
        await commit(rabbit_world, range(3))
        await until_empty(rabbit_world)
        with pytest.raises(AssertionError, match="3 effects"):
            await rabbit_world.await_effects(3, deadline_s=1)


# -- what is not confirmed


async def test_what_rabbitmq_cannot_route_stays_and_other_keys_go_on(rabbit_world: World) -> None:
    """However much of it there is: more than a relay's batch, each under a key of its own, all in front."""
    world = rabbit_world
    unheard = type("Unheard", (world.data,), {"event_type": "thing.unheard_of", "__module__": __name__})
    await commit(world, range(1_000, 1_120), keys=10_000, data=unheard)
    await commit(world, range(10), keys=3)
    async with relay(world, relay_batch_max=50), world.consumer():
        await world.await_effects(10)
        await until_empty(world, rest=120)
    assert sorted(await world.numbers()) == list(range(10))
    assert in_order(await world.effects())


async def test_an_event_waits_for_the_unconfirmed_one_before_it_under_its_key(rabbit_world: World) -> None:
    world = rabbit_world
    unheard = type("Unheard", (world.data,), {"event_type": "thing.unheard_of", "__module__": __name__})
    await commit(world, [1], keys=1, data=unheard)
    await commit(world, [2, 3], keys=1)
    async with world.units.begin() as uow:
        uow.publish(world.data(number=4), subject="another key")
    async with relay(world), world.consumer():
        await world.await_effects(1)
        await world.drained()
        assert await world.real_numbers() == [4]
        assert await world.count("outbox") == 3
        # Somebody subscribes: now it can be routed, and the others follow it.
        broker = await world.publisher()
        elsewhere = type(world.subscription)(
            channel=world.channel, subscriber="elsewhere", types=frozenset({"thing.unheard_of"})
        )
        await broker.declare((), (elsewhere,))
        await until_empty(world)
        await world.await_effects(5)  # and two marks of `drained`
        await world.drained()
    assert await world.real_numbers() == [4, 2, 3]


class Refuses(Counting):
    """Takes nothing; or, told how many, so many of each portion."""

    takes = 0

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        self.published += 1
        return [
            PublishFailure(message, UnavailableError("no right to write")) for message in messages[self.takes :]
        ]


async def test_what_does_not_leave_the_outbox_for_a_minute_is_told_until_it_does(rabbit_world: World) -> None:
    """Whoever asks the broker finds it well: it only takes no events."""
    world, now = rabbit_world, 1_000.0
    refuses = Refuses(await world.publisher())
    one = Relay(world.settings(), refuses, world.telemetry, clock=lambda: now)
    assert one.trouble is None
    await commit(world, range(2), keys=2)
    async with running(one):

        async def tried() -> bool:
            return refuses.published > asked

        asked = 0
        await eventually(tried, "it has tried")
        now += STANDS_STILL_S - 1
        assert one.trouble is None
        now += 1
        asked = refuses.published
        await eventually(tried, "it has tried again")
        assert "no right to write" in (one.trouble or "")
        refuses.takes = 1
        await until_empty(world)
        await eventually(lambda: true(one.trouble is None), "it is over")
        now += STANDS_STILL_S
        assert one.trouble is None, "nothing waits"


@pytest.mark.timeout(300)
async def test_while_the_broker_is_away_rows_stay_and_afterwards_all_arrive(world: World) -> None:
    async with relay(world, publish_timeout_s=5.0), world.consumer():
        await commit(world, range(20))
        await world.await_effects(20)
        await asyncio.to_thread(world.runtime.processes.stop, world.broker_name)
        try:
            await commit(world, range(20, 50))
            assert await world.count("outbox") >= 30
        finally:
            await asyncio.to_thread(world.runtime.processes.start, world.broker_name)
        await commit(world, range(50, 60))
        await world.await_effects(60, deadline_s=120)
        await until_empty(world, deadline_s=120)
        await world.drained()
    effects = [effect for effect in await world.effects() if effect[1] >= 0]
    assert sorted(number for _, number in effects) == list(range(60))
    assert in_order(effects)
    assert await world.dead_letters() == []


async def test_postgresql_restarted_costs_the_relay_nothing(rabbit_world: World) -> None:
    world = rabbit_world
    async with relay(world), world.consumer():
        await commit(world, range(10))
        await world.await_effects(10)
        await asyncio.to_thread(world.runtime.processes.restart, "postgres")
        await eventually(lambda: reachable(world), "PostgreSQL is back for this test's own pool")
        await commit(world, range(10, 20))
        await world.await_effects(20)
        await until_empty(world)
        await world.drained()
    assert sorted(await world.real_numbers()) == list(range(20))


async def reachable(world: World) -> bool:
    try:
        await world.database.ping()
    except Exception:  # noqa: BLE001 - whatever it says, it is not back
        return False
    return True
