"""The pipeline among other processes: living holders, zombies, the dead, and events that kill."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from shared.broker.base import Settlement
from shared.consuming import inbox
from shared.consuming.claims import Claim, Claims, ClaimState
from shared.consuming.pipeline import Pipeline
from shared.dead_letter import headers as dead_letter
from shared.envelope import Envelope
from shared.errors import PermanentError
from shared.event import Event
from shared.publishing.uow import UnitOfWork
from shared.telemetry.provider import prometheus_page
from tests.integration.world import Happened, World, eventually, happened, take_effect

ACK, RETRY = Settlement.ACK, Settlement.RETRY
FIRST, BUSY = Claim(ClaimState.NEW, 1), Claim(ClaimState.BUSY)
QUICK: dict[str, Any] = {"heartbeat_interval_s": 0.2, "heartbeat_ttl_s": 1.0}
LIVING: dict[str, Any] = {"heartbeat_ttl_s": 60.0}
"""Of a holder that lives: on a busy machine, a quick heart may miss its time."""


async def test_what_a_living_process_holds_goes_back_with_what_follows_it_under_its_key(
    rabbit_world: World,
) -> None:
    other = await rabbit_world.claims(**LIVING)
    pipeline = await rabbit_world.pipeline(**QUICK)
    events = [happened(1, "a"), happened(2, "b"), happened(3, "a"), happened(4, "b"), happened(5, "a")]
    await other.claim("tester", [events[2]])
    assert await pipeline(rabbit_world.deliver(events)) == [ACK, ACK, RETRY, ACK, RETRY]
    assert await rabbit_world.numbers() == [1, 2, 4]
    await other.release("tester", [events[2]])
    assert await pipeline(rabbit_world.deliver([events[2], events[4]])) == [ACK, ACK]
    assert await rabbit_world.numbers() == [1, 2, 4, 3, 5]


async def test_an_event_is_counted_once_however_often_it_is_asked_for(rabbit_world: World) -> None:
    other = await rabbit_world.claims(**LIVING)
    pipeline = await rabbit_world.pipeline(**QUICK)
    events = [happened(1, "a"), happened(2, "b")]
    await other.claim("tester", [events[1]])
    assert await pipeline(rabbit_world.deliver(events)) == [ACK, RETRY]
    queue = f'tandem_queue="{pipeline.subscription.queue}"'
    lines = [line for line in prometheus_page()[0].decode().splitlines() if queue in line]
    counted = {
        line.split('outcome="')[1].split('"')[0]: line.split()[-1] for line in lines if "claims_total" in line
    }
    assert counted == {"new": "1.0", "busy": "1.0"}


class SleepwalkingClaims(Claims):
    """A process that falls asleep right after its claim and wakes up when told to."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asleep, self.wake = asyncio.Event(), asyncio.Event()

    async def claim(self, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
        answers = await super().claim(subscriber, events)
        self.asleep.set()
        await self.wake.wait()
        return answers


async def test_a_zombie_that_wakes_up_finds_its_inbox_rows_taken(rabbit_world: World) -> None:
    claims = SleepwalkingClaims(rabbit_world.settings())
    rabbit_world.stack.push_async_callback(claims.close)
    zombie = await rabbit_world.pipeline(claims=claims)  # no heartbeat: to all others it is dead
    successor = await rabbit_world.pipeline()
    batch = rabbit_world.deliver([happened(n) for n in range(5)])
    sleeping = asyncio.create_task(zombie(batch))
    await asyncio.wait_for(claims.asleep.wait(), 30)
    assert await successor(batch) == [ACK] * 5
    claims.wake.set()
    assert await sleeping == [ACK] * 5
    assert await rabbit_world.numbers() == [0, 1, 2, 3, 4]
    assert await rabbit_world.dead_letters() == []


async def test_a_zombie_inside_its_transaction_and_its_successor_leave_one_effect(rabbit_world: World) -> None:
    entered, wake = asyncio.Event(), asyncio.Event()

    async def doze(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        entered.set()
        await wake.wait()

    dead = await rabbit_world.claims(alive=False)
    zombie = await rabbit_world.pipeline(doze, claims=dead)
    successor = await rabbit_world.pipeline()
    batch = rabbit_world.deliver([happened(1)])
    sleeping = asyncio.create_task(zombie(batch))
    await asyncio.wait_for(entered.wait(), 30)
    waiting = asyncio.create_task(successor(batch))  # waits for the zombie's inbox row
    wake.set()
    assert (await sleeping, await waiting) == ([ACK], [ACK])
    assert await rabbit_world.numbers() == [1]


async def test_cancellation_is_passed_on_and_gives_the_claims_back(rabbit_world: World) -> None:
    entered = asyncio.Event()

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        entered.set()
        await asyncio.Event().wait()

    pipeline = await rabbit_world.pipeline(handle)
    events = [happened(1), happened(2)]
    running = asyncio.create_task(pipeline(rabbit_world.deliver(events)))
    await asyncio.wait_for(entered.wait(), 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await rabbit_world.count("effect") == await rabbit_world.count("inbox") == 0
    other = await rabbit_world.claims()
    assert await other.claim("tester", events) == [FIRST, FIRST]


# -- an event that comes alone and needs a transaction, which begins beside its claim


async def in_transaction(event: Event[Happened], uow: UnitOfWork) -> None:
    assert uow.connection is not None, "it begins the transaction"
    take_effect(event, uow)


async def needing(world: World, **parts: Any) -> Pipeline:
    """A pipeline that knows by now that its handler needs one; the event's number was 0."""
    pipeline = await world.pipeline(in_transaction, **parts)
    assert await pipeline(world.deliver([happened(0)])) == [ACK]
    return pipeline


async def nothing_is_begun(world: World) -> bool:
    """No connection is out of the pool, and none that is in it has a transaction."""
    pool: Any = world.database.engine.pool
    assert pool.checkedout() == 0
    query = text("select count(*) from pg_stat_activity where application_name = :name and xact_start is not null")
    async with world.database.statement() as connection:
        return bool((await connection.execute(query, {"name": world.name})).scalar_one() == 1)  # this one's


@pytest.mark.parametrize("cancelled", [True, False])
async def test_what_was_begun_for_a_claim_that_does_not_come_is_undone(
    rabbit_world: World, cancelled: bool
) -> None:
    claims = SleepwalkingClaims(rabbit_world.settings())
    rabbit_world.stack.push_async_callback(claims.close)
    claims.wake.set()
    pipeline = await needing(rabbit_world, claims=claims)
    claims.wake.clear()
    claims.asleep.clear()
    event = happened(1)
    if not cancelled:
        await (await rabbit_world.claims()).done("tester", [event])
    running = asyncio.create_task(pipeline(rabbit_world.deliver([event])))
    await asyncio.wait_for(claims.asleep.wait(), 30)
    await eventually(lambda: is_recorded_uncommitted(rabbit_world), "its row is written")
    if cancelled:
        running.cancel()
        await asyncio.wait([running], timeout=30)
        assert await (await rabbit_world.claims()).claim("tester", [event]) == [FIRST]
    else:
        claims.wake.set()
        assert await running == [ACK]
    assert await rabbit_world.count("effect") == await rabbit_world.count("inbox") == 1
    assert await nothing_is_begun(rabbit_world)


async def is_recorded_uncommitted(world: World) -> bool:
    """Whether a session of this test has a transaction that has written, and waits for its client."""
    query = text(
        "select count(*) from pg_stat_activity"
        " where application_name = :name and state = 'idle in transaction' and backend_xid is not null"
    )
    async with world.database.statement() as connection:
        return bool((await connection.execute(query, {"name": world.name})).scalar_one())


async def test_of_what_another_process_has_in_its_transaction_no_row_is_waited_for(rabbit_world: World) -> None:
    """And the other one's effect is the only one, though the database knew of it before Redis did."""
    other = await rabbit_world.claims(**LIVING)
    pipeline = await needing(rabbit_world, heartbeat_interval_s=0.1, heartbeat_ttl_s=0.4)
    event = happened(1)
    await other.claim("tester", [event])
    async with rabbit_world.units.begin() as uow:
        await inbox.record(uow.connection, "tester", [event])
        assert await asyncio.wait_for(pipeline(rabbit_world.deliver([event])), 8) == [RETRY], "not within 10 s"
    assert await pipeline(rabbit_world.deliver([event])) == [RETRY], "it is claimed until it is marked"
    await other.done("tester", [event])
    assert await pipeline(rabbit_world.deliver([event])) == [ACK]
    assert await rabbit_world.numbers() == [0]
    assert await nothing_is_begun(rabbit_world)


# -- a batch that is taken up ahead


async def test_what_is_taken_up_ahead_has_no_effect_and_is_claimed_until_it_is_abandoned(
    rabbit_world: World,
) -> None:
    pipeline, other = await rabbit_world.pipeline(**LIVING), await rabbit_world.claims()
    events = [happened(1), happened(2)]
    taken = await pipeline.prepare(rabbit_world.deliver(events))
    assert await rabbit_world.count("effect") == await rabbit_world.count("inbox") == 0
    assert await other.claim("tester", events) == [BUSY, BUSY]
    await taken.abandon()
    assert await other.claim("tester", events) == [FIRST, FIRST], "not counted"


async def test_two_batches_at_once_that_share_an_event_have_its_effect_once(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline()
    events = [happened(number) for number in range(5)]
    first = await pipeline.prepare(rabbit_world.deliver(events[:3]))
    second = await pipeline.prepare(rabbit_world.deliver(events[2:]))
    assert await first.run() == [ACK] * 3
    assert await second.run() == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 1, 2, 3, 4]


async def test_a_shared_event_that_became_a_dead_letter_becomes_no_effect_in_the_second(
    rabbit_world: World,
) -> None:
    async def refuse(event: Event[Happened], uow: UnitOfWork) -> None:
        if event.data.number == 1:
            raise PermanentError("planted")
        take_effect(event, uow)

    pipeline = await rabbit_world.pipeline(refuse)
    events = [happened(number) for number in range(3)]
    first = await pipeline.prepare(rabbit_world.deliver(events[:2]))
    second = await pipeline.prepare(rabbit_world.deliver(events[1:]))
    assert (await first.run(), await second.run()) == ([ACK] * 2, [ACK] * 2)
    assert await rabbit_world.numbers() == [0, 2]


async def test_behind_what_may_kill_nothing_is_claimed_before_its_turn(rabbit_world: World) -> None:
    """Else what waits would be counted with it, process after process."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        entered.set()
        await go_on.wait()

    pipeline, other = await rabbit_world.pipeline(handle, **LIVING), await rabbit_world.claims()
    suspect, waits = happened(1), happened(2)
    await died_with(rabbit_world, [suspect], times=1)
    running = asyncio.create_task(pipeline(rabbit_world.deliver([suspect])))
    await asyncio.wait_for(entered.wait(), 30)
    taken = await pipeline.prepare(rabbit_world.deliver([waits]))
    assert await other.claim("tester", [waits]) == [FIRST]
    await other.release("tester", [waits])
    go_on.set()
    assert (await running, await taken.run()) == ([ACK], [ACK])
    assert await rabbit_world.numbers() == [1, 2]


async def test_suspects_that_wait_are_not_counted_for_what_runs_before_them(rabbit_world: World) -> None:
    pipeline, other = await rabbit_world.pipeline(), await rabbit_world.claims()
    suspect = happened(1)
    await died_with(rabbit_world, [suspect], times=1)
    taken = await pipeline.prepare(rabbit_world.deliver([suspect]))
    assert await other.claim("tester", [suspect]) == [Claim(ClaimState.NEW, 2)], "as if it had not been taken up"
    await other.release("tester", [suspect])
    assert await taken.run() == [ACK]
    assert await rabbit_world.numbers() == [1]


# -- attempts


async def died_with(world: World, events: Sequence[Envelope], times: int) -> None:
    """As often, a process claims these events and dies."""
    for _ in range(times):
        await (await world.claims(alive=False)).claim("tester", events)


async def test_an_event_that_was_taken_up_too_often_is_parked_and_its_neighbours_are_not(world: World) -> None:
    pipeline = await world.pipeline(deliveries_max=3)
    killer = happened(1)
    await died_with(world, [killer], times=3)
    batch = world.deliver([happened(0), killer, happened(2)])
    assert await pipeline(batch) == [ACK] * 3
    assert await world.numbers() == [0, 2]
    [letter] = await world.await_dead_letters(1)
    assert Envelope.decode(letter.body).id == killer.id
    assert letter.headers[dead_letter.ERROR_TYPE] == "AttemptsExhaustedError"


async def test_below_the_limit_a_suspect_is_tried_again(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(deliveries_max=3)
    suspect = happened(1)
    await died_with(rabbit_world, [suspect], times=2)
    assert await pipeline(rabbit_world.deliver([suspect])) == [ACK]
    assert await rabbit_world.numbers() == [1]


async def test_what_finished_before_a_process_died_is_not_suspected_with_the_killer(rabbit_world: World) -> None:
    """However often the third of four kills, the first two take effect once and are never parked."""

    class Killed(BaseException):
        """Stands for the process's end: nothing of the pipeline runs afterwards."""

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        if event.data.number == 2:
            raise Killed

    class DeadHand(Claims):
        """A dead process releases nothing."""

        async def release(self, subscriber: str, events: Sequence[Envelope], *, forget: bool = False) -> None:
            if not self.dead:
                await super().release(subscriber, events, forget=forget)

        dead = False

    events = [happened(number) for number in range(4)]
    settlements: Sequence[Settlement] | None = None
    for _ in range(5):
        claims = DeadHand(rabbit_world.settings())
        rabbit_world.stack.push_async_callback(claims.close)

        async def dying(event: Event[Happened], uow: UnitOfWork, claims: DeadHand = claims) -> None:
            claims.dead = event.data.number == 2
            await handle(event, uow)

        pipeline = await rabbit_world.pipeline(dying, claims=claims, deliveries_max=3)
        try:
            settlements = await pipeline(rabbit_world.deliver(events))
        except Killed:
            continue
        break
    assert settlements == [ACK] * 4
    assert sorted(await rabbit_world.numbers()) == [0, 1, 3]
    [letter] = await rabbit_world.await_dead_letters(1)
    assert Envelope.decode(letter.body).id == events[2].id
