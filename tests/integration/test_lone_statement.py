"""An event alone whose handler only tells, on a real PostgreSQL: one statement, and still a single effect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection, AsyncAdapt_asyncpg_cursor

from shared.broker.base import Settlement
from shared.errors import PermanentError
from shared.event import Event
from shared.publishing import Leading
from shared.publishing.doorbell import Doorbell, Row
from shared.publishing.uow import UnitOfWork, UnitsOfWork
from tests.integration.world import Happened, World, happened, take_effect

ACK = Settlement.ACK
_INSERT = text("insert into effect (event_id, key, number) values (:event_id, :key, :number)")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What PostgreSQL is sent: each statement's first words, and where a transaction begins."""
    said: list[str] = []
    execute: Any = AsyncAdapt_asyncpg_cursor._prepare_and_execute
    begin: Any = AsyncAdapt_asyncpg_connection._start_transaction

    async def executed(self: Any, operation: str, parameters: Any) -> Any:
        before = len(said)
        said.append("")  # the transaction begins inside
        result = await execute(self, operation, parameters)
        said[before:] = [*said[before + 1 :], " ".join(operation.split()[:4]).lower()]
        return result

    async def begun(self: Any) -> None:
        await begin(self)
        if self._transaction is not None:
            said.append("begin")

    monkeypatch.setattr(AsyncAdapt_asyncpg_cursor, "_prepare_and_execute", executed)
    monkeypatch.setattr(AsyncAdapt_asyncpg_connection, "_start_transaction", begun)
    return said


async def on_happened(event: Event[Happened], uow: UnitOfWork) -> None:
    take_effect(event, uow)


async def publish_too(event: Event[Happened], uow: UnitOfWork) -> None:
    take_effect(event, uow)
    uow.publish(event.data, subject=event.envelope.key)


async def tell_text(event: Event[Happened], uow: UnitOfWork) -> None:
    uow.tell(_INSERT, {"event_id": event.id, "key": event.envelope.key, "number": event.data.number})


@pytest.mark.parametrize("handle", [on_happened, publish_too, tell_text])
async def test_it_is_one_statement_with_its_row_in_the_inbox(
    rabbit_world: World, sent: list[str], handle: Callable[[Event[Happened], UnitOfWork], Awaitable[None]]
) -> None:
    pipeline = await rabbit_world.pipeline(handle)
    for number in range(4):  # what was seen twice goes another way to the driver
        sent.clear()
        assert await pipeline(rabbit_world.deliver([happened(number)])) == [ACK]
        assert [one.split()[0] for one in sent] == ["with"]
    assert await rabbit_world.numbers() == [0, 1, 2, 3]
    assert await rabbit_world.count("inbox") == 4
    assert await rabbit_world.count("outbox") == (4 if handle is publish_too else 0)


async def test_beside_the_relay_it_says_the_places_of_its_events_too(rabbit_world: World, sent: list[str]) -> None:
    leading, doorbell = Leading(1), Doorbell()
    handed: list[int] = []

    def take(rows: Sequence[Row]) -> bool:
        handed.extend(row["position"] for row in rows)
        return True

    doorbell.open(take)
    units = UnitsOfWork(rabbit_world.database, "tester", rabbit_world.telemetry.spans, leading)
    pipeline = await rabbit_world.pipeline(publish_too, units=units)
    with leading.of(0, doorbell):
        for number in range(3):
            sent.clear()
            assert await pipeline(rabbit_world.deliver([happened(number, f"k{number}")])) == [ACK]
            assert [one.split()[0] for one in sent] == ["with"]
    assert await rabbit_world.count("inbox") == await rabbit_world.count("outbox") == 3
    assert (handed, doorbell.is_rung) == ([1, 2, 3], False)


async def test_a_duplicate_that_redis_does_not_know_leaves_one_effect_and_no_dead_letter(
    rabbit_world: World,
) -> None:
    first, again = [await rabbit_world.pipeline(claims=await rabbit_world.claims()) for _ in range(2)]
    event = happened(1)
    assert await first(rabbit_world.deliver([event])) == [ACK]
    await forget_claims(rabbit_world)
    assert await again(rabbit_world.deliver([event])) == [ACK]
    assert (await rabbit_world.numbers(), await rabbit_world.dead_letters()) == ([1], [])
    assert await rabbit_world.count("inbox") == 1


async def forget_claims(world: World) -> None:
    """As when Redis is flushed."""
    claims = await world.claims()
    keys = [key async for key in claims._redis.scan_iter("tandem:claim:*")]
    if keys:
        await claims._redis.delete(*keys)


async def test_however_events_come_again_each_has_its_effect_once(rabbit_world: World) -> None:
    """Some at the same time in two processes, some after Redis has forgotten, some whose handler refuses the first
    time that it sees them or begins a transaction, some in batches."""
    seed = Random().randrange(2**32)
    random = Random(seed)
    seen: set[int] = set()

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        number = event.data.number
        if number % 5 == 0 and number not in seen:
            seen.add(number)
            raise KeyError("planted")
        if number % 3 == 0:
            await uow.connection.execute(text("select 1"))
        take_effect(event, uow)
        if number % 7 == 0:
            uow.publish(event.data, subject="s")

    pipelines = [
        await rabbit_world.pipeline(handle, claims=await rabbit_world.claims(alive=False)) for _ in range(3)
    ]
    events = [happened(number, f"k{number % 4}") for number in range(24)]
    for event in random.sample([*events, *events, *events], 3 * len(events)):
        delivered = rabbit_world.deliver([event] if random.random() < 0.8 else random.sample(events, 3))
        if random.random() < 0.5:
            await forget_claims(rabbit_world)
        several = random.sample(pipelines, random.choice((1, 1, 2)))
        settled = await asyncio.gather(*(pipeline(delivered) for pipeline in several))
        assert settled == [[ACK] * len(delivered)] * len(several), seed
    assert sorted(await rabbit_world.numbers()) == list(range(24)), seed
    assert await rabbit_world.count("inbox") == 24, seed
    assert await rabbit_world.count("outbox") == 4, seed
    assert await rabbit_world.dead_letters() == []


async def test_what_a_handler_takes_back_to_a_savepoint_does_not_take_its_row_in_the_inbox_with_it(
    rabbit_world: World,
) -> None:
    async def try_first(event: Event[Happened], uow: UnitOfWork) -> None:
        with suppress(KeyError):
            async with uow.connection.begin_nested():
                take_effect(event, uow)
                await uow.flush()
                raise KeyError("taken back")
        take_effect(event, uow)

    event = happened(1)
    for _ in range(2):
        pipeline = await rabbit_world.pipeline(try_first)
        assert await pipeline(rabbit_world.deliver([event])) == [ACK]
        await forget_claims(rabbit_world)
    assert (await rabbit_world.numbers(), await rabbit_world.count("inbox")) == ([1], 1)


async def test_what_its_own_row_violates_is_its_dead_letter_and_leaves_nothing(rabbit_world: World) -> None:
    null = text("insert into effect (event_id, number) values (:event_id, 1)")
    calls: list[int] = []

    async def violate(event: Event[Happened], uow: UnitOfWork) -> None:
        calls.append(event.data.number)
        uow.tell(null, {"event_id": event.id})

    pipeline = await rabbit_world.pipeline(violate, handler_attempts_max=2)
    assert await pipeline(rabbit_world.deliver([happened(1)])) == [ACK]
    [letter] = await rabbit_world.await_dead_letters(1)
    assert letter.headers["tandem-error-type"] == "IntegrityError"
    assert (calls, await rabbit_world.count("inbox"), await rabbit_world.count("effect")) == ([1, 1], 0, 0)


async def test_what_was_refused_may_be_given_back(rabbit_world: World) -> None:
    async def refuse(_event: Event[Happened], _uow: UnitOfWork) -> None:
        raise PermanentError("planted")

    event = happened(1)
    assert await (await rabbit_world.pipeline(refuse))(rabbit_world.deliver([event])) == [ACK]
    assert await rabbit_world.count("inbox") == 0
    assert await (await rabbit_world.pipeline())(rabbit_world.deliver([event])) == [ACK]
    assert await rabbit_world.numbers() == [1]


async def test_a_session_that_ends_under_it_costs_a_wait_and_no_second_effect(rabbit_world: World) -> None:
    killed: list[int] = []

    async def lose_session(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        if not killed:
            killed.append(event.data.number)
            own = (await uow.reads.execute(text("select pg_backend_pid()"))).scalar_one()
            async with rabbit_world.units.statement() as connection:
                await connection.execute(text("select pg_terminate_backend(:own)"), {"own": own})

    pipeline = await rabbit_world.pipeline(lose_session)
    assert await pipeline(rabbit_world.deliver([happened(1)])) == [ACK]
    assert (killed, await rabbit_world.numbers(), await rabbit_world.count("inbox")) == ([1], [1], 1)
