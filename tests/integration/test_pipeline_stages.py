"""The pipeline's stages with real PostgreSQL, Redis and dead-letter places; batches are handed over by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from shared import dead_letter
from shared import pipeline as pipeline_module
from shared.broker.base import Broker, Delivery, Settlement
from shared.dedupe import Claim, Claims, ClaimState
from shared.envelope import Envelope
from shared.errors import BusinessError, TransientError, UnavailableError
from shared.event import Event
from shared.uow import UnitOfWork
from tests.integration.world import INSERT_EFFECT, Happened, World, happened, on_happened, take_effect

ACK, RETRY = Settlement.ACK, Settlement.RETRY
FIRST = Claim(ClaimState.NEW, 1)
QUICK: dict[str, Any] = {"heartbeat_interval_s": 0.2, "heartbeat_ttl_s": 1.0}


def deliver(world: World, events: Sequence[Envelope | bytes]) -> list[Delivery]:
    return [
        Delivery(
            body=event if isinstance(event, bytes) else event.encode(),
            headers={},
            channel=world.channel,
            key="k",
            redelivered=False,
            position=f"{world.channel}#{index}",
            token=None,
        )
        for index, event in enumerate(events)
    ]


class ForgetfulClaims(Claims):
    """Redis that knows nothing: everything is new to it."""

    async def claim(self, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
        return [FIRST] * len(events)


async def test_a_batch_takes_effect_in_its_order_and_is_acknowledged(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline()
    assert await pipeline(deliver(rabbit_world, [happened(n) for n in range(20)])) == [ACK] * 20
    assert await rabbit_world.numbers() == list(range(20))
    assert await rabbit_world.count("inbox") == 20


async def test_duplicates_within_a_batch_take_effect_once(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline()
    one, other = happened(1), happened(2)
    assert await pipeline(deliver(rabbit_world, [one, one, other, one, other])) == [ACK] * 5
    assert await rabbit_world.numbers() == [1, 2]


async def test_a_batch_that_comes_again_has_no_effect_because_of_its_claims(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline()
    batch = deliver(rabbit_world, [happened(n) for n in range(3)])
    await pipeline(batch)
    assert await pipeline(batch) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 1, 2]


async def test_a_batch_that_comes_again_has_no_effect_although_redis_forgot_it(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(claims=ForgetfulClaims(rabbit_world.settings()))
    batch = deliver(rabbit_world, [happened(n) for n in range(3)])
    for _ in range(3):
        assert await pipeline(batch) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 1, 2]


async def test_without_the_inbox_the_test_above_would_fail(
    rabbit_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test of the test: with the fence planted away, the duplicate shows."""

    async def everything_is_fresh(_c: object, _s: str, events: Sequence[Envelope]) -> set[tuple[str, str]]:
        return {(event.source, event.id) for event in events}

    monkeypatch.setattr(pipeline_module.inbox, "record", everything_is_fresh)
    pipeline = await rabbit_world.pipeline(claims=ForgetfulClaims(rabbit_world.settings()))
    batch = deliver(rabbit_world, [happened(1)])
    await pipeline(batch)
    await pipeline(batch)
    assert await rabbit_world.numbers() == [1, 1]


# -- failures


async def test_a_business_impossibility_discards_and_dead_letters_that_event_alone(world: World) -> None:
    runs: list[int] = []

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        runs.append(event.data.number)
        take_effect(event, uow)
        uow.publish(world.data(number=event.data.number), subject="s")
        if event.data.number == 1:
            raise BusinessError("there is no such thing")

    pipeline = await world.pipeline(handle)
    assert await pipeline(deliver(world, [happened(n) for n in range(3)])) == [ACK] * 3
    assert await world.numbers() == [0, 2]
    assert await world.count("outbox") == 2
    assert runs == [0, 1, 2], "nothing was rolled back and run again"
    [letter] = await world.await_dead_letters(1)
    assert Envelope.decode(letter.body).data == {"number": 1}
    assert letter.headers[dead_letter.ERROR_TYPE] == "BusinessError"
    assert letter.headers[dead_letter.ERROR_MESSAGE] == "there is no such thing"
    assert letter.headers[dead_letter.SUBSCRIBER] == "tester"
    assert letter.headers[dead_letter.CHANNEL] == world.channel
    assert "raise BusinessError" in letter.headers[dead_letter.ERROR_STACK]


async def test_a_dead_letter_that_is_redriven_may_take_effect(rabbit_world: World) -> None:
    broken = True

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        if broken:
            raise BusinessError("not yet")
        take_effect(event, uow)

    pipeline = await rabbit_world.pipeline(handle)
    batch = deliver(rabbit_world, [happened(1), happened(2)])
    await pipeline(batch)
    assert await rabbit_world.numbers() == []
    broken = False
    assert await pipeline(batch) == [ACK] * 2
    assert await rabbit_world.numbers() == [1, 2]


async def test_a_permanent_failure_after_a_flush_leaves_nothing_either(rabbit_world: World) -> None:
    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        await uow.flush()
        if event.data.number == 1:
            raise BusinessError("too late to take it back")

    pipeline = await rabbit_world.pipeline(handle)
    assert await pipeline(deliver(rabbit_world, [happened(n) for n in range(3)])) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 2]
    [letter] = await rabbit_world.await_dead_letters(1)
    assert letter.headers[dead_letter.ERROR_TYPE] == "BusinessError"


async def test_an_unknown_exception_is_retried_within_bounds_and_dead_lettered(world: World) -> None:
    runs: list[int] = []

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        runs.append(event.data.number)
        take_effect(event, uow)
        if event.data.number == 2:
            raise KeyError("a bug")

    pipeline = await world.pipeline(handle, handler_attempts_max=3)
    assert await pipeline(deliver(world, [happened(n) for n in range(5)])) == [ACK] * 5
    assert await world.numbers() == [0, 1, 3, 4]
    assert 3 <= runs.count(2) <= 4
    [letter] = await world.await_dead_letters(1)
    assert letter.headers[dead_letter.ERROR_TYPE] == "KeyError"
    assert int(letter.headers[dead_letter.ATTEMPTS]) == runs.count(2)


async def test_a_transient_failure_that_passes_leaves_one_effect_and_no_letter(rabbit_world: World) -> None:
    failures = iter([True, True, False])

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        if event.data.number == 1 and next(failures):
            raise TransientError("try again")

    pipeline = await rabbit_world.pipeline(handle)
    assert await pipeline(deliver(rabbit_world, [happened(n) for n in range(3)])) == [ACK] * 3
    assert sorted(await rabbit_world.numbers()) == [0, 1, 2]
    assert await rabbit_world.dead_letters() == []


async def test_rows_that_postgresql_refuses_cost_their_event_only(rabbit_world: World) -> None:
    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        number = event.data.number
        uow.tell(INSERT_EFFECT, {"event_id": event.id, "key": "a\x00" if number == 1 else "a", "number": number})

    pipeline = await rabbit_world.pipeline(handle)
    assert await pipeline(deliver(rabbit_world, [happened(n) for n in range(3)])) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 2]
    assert len(await rabbit_world.await_dead_letters(1)) == 1


async def test_a_handler_that_hangs_is_stopped_and_dead_lettered(rabbit_world: World) -> None:
    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        if event.data.number == 1:
            await asyncio.Event().wait()

    pipeline = await rabbit_world.pipeline(handle, handler_timeout_s=0.5, handler_attempts_max=2)
    assert await pipeline(deliver(rabbit_world, [happened(n) for n in range(3)])) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 2]
    [letter] = await rabbit_world.await_dead_letters(1)
    assert "not finished within 0.5 s" in letter.headers[dead_letter.ERROR_MESSAGE]


async def test_a_dead_letter_that_is_not_confirmed_leaves_the_event_with_the_broker(rabbit_world: World) -> None:
    class Refusing:
        """The adapter, while the broker takes no dead letters."""

        def __init__(self, broker: Broker) -> None:
            self.broker, self.open = broker, False

        async def publish_dead_letter(self, *arguments: Any) -> None:
            if not self.open:
                raise UnavailableError("planted")
            await self.broker.publish_dead_letter(*arguments)

    refusing = Refusing(await rabbit_world.publisher())
    pipeline = await rabbit_world.pipeline(
        _impossible_when_odd,
        broker=refusing,
        outage_hold_s=0.1,  # type: ignore[arg-type]
    )
    batch = deliver(rabbit_world, [b"garbage", *(happened(n) for n in range(4))])
    assert await pipeline(batch) == [RETRY, ACK, RETRY, ACK, RETRY]
    refusing.open = True
    assert await pipeline(batch) == [ACK] * 5
    assert await rabbit_world.numbers() == [0, 2]
    assert len(await rabbit_world.await_dead_letters(3)) == 3


async def _impossible_when_odd(event: Event[Happened], uow: UnitOfWork) -> None:
    if event.data.number % 2:
        raise BusinessError("odd")
    take_effect(event, uow)


# -- claims


async def test_what_a_living_process_holds_goes_back_with_what_follows_it_under_its_key(
    rabbit_world: World,
) -> None:
    other = await rabbit_world.claims(**QUICK)
    pipeline = await rabbit_world.pipeline(**QUICK)
    events = [happened(1, "a"), happened(2, "b"), happened(3, "a"), happened(4, "b"), happened(5, "a")]
    await other.claim("tester", [events[2]])
    assert await pipeline(deliver(rabbit_world, events)) == [ACK, ACK, RETRY, ACK, RETRY]
    assert await rabbit_world.numbers() == [1, 2, 4]
    await other.release("tester", [events[2]])
    assert await pipeline(deliver(rabbit_world, [events[2], events[4]])) == [ACK, ACK]
    assert await rabbit_world.numbers() == [1, 2, 4, 3, 5]


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
    batch = deliver(rabbit_world, [happened(n) for n in range(5)])
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
    batch = deliver(rabbit_world, [happened(1)])
    sleeping = asyncio.create_task(zombie(batch))
    await asyncio.wait_for(entered.wait(), 30)
    waiting = asyncio.create_task(successor(batch))  # waits for the zombie's inbox row
    wake.set()
    assert await asyncio.gather(sleeping, waiting) == [[ACK], [ACK]]
    assert await rabbit_world.numbers() == [1]


async def test_cancellation_is_passed_on_and_gives_the_claims_back(rabbit_world: World) -> None:
    entered = asyncio.Event()

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        entered.set()
        await asyncio.Event().wait()

    pipeline = await rabbit_world.pipeline(handle)
    events = [happened(1), happened(2)]
    running = asyncio.create_task(pipeline(deliver(rabbit_world, events)))
    await asyncio.wait_for(entered.wait(), 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await rabbit_world.count("effect") == await rabbit_world.count("inbox") == 0
    other = await rabbit_world.claims()
    assert await other.claim("tester", events) == [FIRST, FIRST]


# -- attempts


async def died_with(world: World, events: Sequence[Envelope], times: int) -> None:
    """As often, a process claims these events and dies."""
    for _ in range(times):
        await (await world.claims(alive=False)).claim("tester", events)


async def test_an_event_that_was_taken_up_too_often_is_parked_and_its_neighbours_are_not(world: World) -> None:
    pipeline = await world.pipeline(deliveries_max=3)
    killer = happened(1)
    await died_with(world, [killer], times=3)
    batch = deliver(world, [happened(0), killer, happened(2)])
    assert await pipeline(batch) == [ACK] * 3
    assert await world.numbers() == [0, 2]
    [letter] = await world.await_dead_letters(1)
    assert Envelope.decode(letter.body).id == killer.id
    assert letter.headers[dead_letter.ERROR_TYPE] == "AttemptsExhaustedError"


async def test_below_the_limit_a_suspect_is_tried_again(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(deliveries_max=3)
    suspect = happened(1)
    await died_with(rabbit_world, [suspect], times=2)
    assert await pipeline(deliver(rabbit_world, [suspect])) == [ACK]
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
            settlements = await pipeline(deliver(rabbit_world, events))
        except Killed:
            continue
        break
    assert settlements == [ACK] * 4
    assert sorted(await rabbit_world.numbers()) == [0, 1, 3]
    [letter] = await rabbit_world.await_dead_letters(1)
    assert Envelope.decode(letter.body).id == events[2].id


# -- servers away


async def test_postgresql_away_for_longer_than_the_hold_gives_the_batch_back_unharmed(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(outage_hold_s=0.5, postgres_timeout_s=2.0)
    events = [happened(n) for n in range(3)]
    await asyncio.to_thread(rabbit_world.runtime.stop_process, "postgres")
    try:
        assert await pipeline(deliver(rabbit_world, events)) == [RETRY] * 3
    finally:
        await asyncio.to_thread(rabbit_world.runtime.start_process, "postgres")
    assert await (await rabbit_world.claims(alive=False)).claim("tester", events) == [FIRST] * 3
    assert await pipeline(deliver(rabbit_world, events)) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 1, 2]
    assert await rabbit_world.dead_letters() == []


async def test_without_redis_the_inbox_alone_keeps_effects_single(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(redis_timeout_s=0.5)
    early, late = happened(1), happened(2)
    await pipeline(deliver(rabbit_world, [early]))
    await asyncio.to_thread(rabbit_world.runtime.stop_process, "redis")
    try:
        for _ in range(3):
            assert await pipeline(deliver(rabbit_world, [early, late])) == [ACK] * 2
    finally:
        await asyncio.to_thread(rabbit_world.runtime.start_process, "redis")
    assert await pipeline(deliver(rabbit_world, [early, late])) == [ACK] * 2
    assert await rabbit_world.numbers() == [1, 2]


async def test_the_pipeline_reads_what_another_schema_version_left_alone(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(on_happened)
    tolerant = happened(1, data={"number": 1, "added": {"by": "a newer producer"}})
    without_schema = happened(2, dataschema=None)
    assert await pipeline(deliver(rabbit_world, [tolerant, without_schema])) == [ACK] * 2
    assert await rabbit_world.numbers() == [1, 2]
