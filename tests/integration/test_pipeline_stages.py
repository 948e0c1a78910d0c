"""The pipeline's stages with real PostgreSQL, Redis and dead-letter places; batches are handed over by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator
from sqlalchemy import select

from shared.broker.base import Broker, Settlement
from shared.consuming import inbox
from shared.consuming.claims import Claim, Claims, ClaimState
from shared.dead_letter import headers as dead_letter
from shared.envelope import Envelope
from shared.errors import BusinessError, TransientError, UnavailableError
from shared.event import Event
from shared.publishing.uow import UnitOfWork
from tests.integration.world import INSERT_EFFECT, Happened, World, effect, happened, on_happened, take_effect

ACK, RETRY = Settlement.ACK, Settlement.RETRY
FIRST = Claim(ClaimState.NEW, 1)
QUICK: dict[str, Any] = {"heartbeat_interval_s": 0.2, "heartbeat_ttl_s": 1.0}


class ForgetfulClaims(Claims):
    """Redis that knows nothing: everything is new to it."""

    async def claim(self, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
        return [FIRST] * len(events)


async def test_a_batch_takes_effect_in_its_order_and_is_acknowledged(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline()
    assert await pipeline(rabbit_world.deliver([happened(n) for n in range(20)])) == [ACK] * 20
    assert await rabbit_world.numbers() == list(range(20))
    assert await rabbit_world.count("inbox") == 20


async def test_duplicates_within_a_batch_take_effect_once(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline()
    one, other = happened(1), happened(2)
    assert await pipeline(rabbit_world.deliver([one, one, other, one, other])) == [ACK] * 5
    assert await rabbit_world.numbers() == [1, 2]


async def test_a_batch_that_comes_again_has_no_effect_because_of_its_claims(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline()
    batch = rabbit_world.deliver([happened(n) for n in range(3)])
    await pipeline(batch)
    assert await pipeline(batch) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 1, 2]


async def test_a_batch_that_comes_again_has_no_effect_although_redis_forgot_it(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(claims=ForgetfulClaims(rabbit_world.settings()))
    batch = rabbit_world.deliver([happened(n) for n in range(3)])
    for _ in range(3):
        assert await pipeline(batch) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 1, 2]


async def test_without_the_inbox_the_test_above_would_fail(
    rabbit_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test of the test: with the fence planted away, the duplicate shows."""

    async def knows_none(_c: object, _s: str, _events: Sequence[Envelope]) -> tuple[()]:
        return ()

    monkeypatch.setattr(inbox, "record", knows_none)
    pipeline = await rabbit_world.pipeline(claims=ForgetfulClaims(rabbit_world.settings()))
    batch = rabbit_world.deliver([happened(1)])
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
    assert await pipeline(world.deliver([happened(n) for n in range(3)])) == [ACK] * 3
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
    batch = rabbit_world.deliver([happened(1), happened(2)])
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
    assert await pipeline(rabbit_world.deliver([happened(n) for n in range(3)])) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 2]
    [letter] = await rabbit_world.await_dead_letters(1)
    assert letter.headers[dead_letter.ERROR_TYPE] == "BusinessError"


@pytest.mark.parametrize("error", [KeyError("missing"), TypeError("planted"), TransientError("planted")])
async def test_a_model_that_raises_what_it_should_not_costs_its_event_only(
    rabbit_world: World, error: Exception
) -> None:
    def odd_numbers_raise(number: int) -> int:
        if number % 2:
            raise error
        return number

    checked = Annotated[int, AfterValidator(odd_numbers_raise)]
    names = {"channel": rabbit_world.channel, "__module__": __name__, "__annotations__": {"number": checked}}
    rabbit_world.data = type("Happened", (Happened,), names)
    pipeline = await rabbit_world.pipeline()
    assert await pipeline(rabbit_world.deliver([happened(number) for number in range(4)])) == [ACK] * 4
    assert await rabbit_world.numbers() == [0, 2]
    letters = await rabbit_world.await_dead_letters(2)
    assert {letter.headers[dead_letter.ERROR_TYPE] for letter in letters} == {type(error).__name__}


async def test_an_unknown_exception_is_retried_within_bounds_and_dead_lettered(world: World) -> None:
    runs: list[int] = []

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        runs.append(event.data.number)
        take_effect(event, uow)
        if event.data.number == 2:
            raise KeyError("a bug")

    pipeline = await world.pipeline(handle, handler_attempts_max=3)
    assert await pipeline(world.deliver([happened(n) for n in range(5)])) == [ACK] * 5
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
    assert await pipeline(rabbit_world.deliver([happened(n) for n in range(3)])) == [ACK] * 3
    assert sorted(await rabbit_world.numbers()) == [0, 1, 2]
    assert await rabbit_world.dead_letters() == []


async def test_rows_that_postgresql_refuses_cost_their_event_only(rabbit_world: World) -> None:
    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        number = event.data.number
        uow.tell(INSERT_EFFECT, {"event_id": event.id, "key": "a\x00" if number == 1 else "a", "number": number})

    pipeline = await rabbit_world.pipeline(handle)
    assert await pipeline(rabbit_world.deliver([happened(n) for n in range(3)])) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 2]
    assert len(await rabbit_world.await_dead_letters(1)) == 1


async def test_a_statement_that_no_server_can_take_costs_its_event_only(rabbit_world: World) -> None:
    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        if event.data.number == 1:  # the protocol numbers parameters in 15 bits
            await uow.connection.execute(select(effect).where(effect.c.number.in_(range(40_000))))
        take_effect(event, uow)

    pipeline = await rabbit_world.pipeline(handle)
    assert await pipeline(rabbit_world.deliver([happened(number) for number in range(3)])) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 2]
    (letter,) = await rabbit_world.await_dead_letters(1)
    assert "query arguments" in letter.headers[dead_letter.ERROR_MESSAGE]


async def test_a_handler_that_hangs_is_stopped_and_dead_lettered(rabbit_world: World) -> None:
    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        if event.data.number == 1:
            await asyncio.Event().wait()

    pipeline = await rabbit_world.pipeline(handle, handler_timeout_s=0.5, handler_attempts_max=2)
    assert await pipeline(rabbit_world.deliver([happened(n) for n in range(3)])) == [ACK] * 3
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
    parts: dict[str, Any] = {"broker": refusing}  # it has of a broker what is needed here
    pipeline = await rabbit_world.pipeline(_impossible_when_odd, outage_hold_s=0.1, **parts)
    batch = rabbit_world.deliver([b"garbage", *(happened(n) for n in range(4))])
    assert await pipeline(batch) == [RETRY, ACK, RETRY, ACK, RETRY]
    refusing.open = True
    assert await pipeline(batch) == [ACK] * 5
    assert await rabbit_world.numbers() == [0, 2]
    assert len(await rabbit_world.await_dead_letters(3)) == 3


async def _impossible_when_odd(event: Event[Happened], uow: UnitOfWork) -> None:
    if event.data.number % 2:
        raise BusinessError("odd")
    take_effect(event, uow)


# -- servers away


async def test_postgresql_away_for_longer_than_the_hold_gives_the_batch_back_unharmed(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(outage_hold_s=0.5, postgres_timeout_s=2.0)
    events = [happened(n) for n in range(3)]
    await asyncio.to_thread(rabbit_world.runtime.processes.stop, "postgres")
    try:
        assert await pipeline(rabbit_world.deliver(events)) == [RETRY] * 3
    finally:
        await asyncio.to_thread(rabbit_world.runtime.processes.start, "postgres")
    assert await (await rabbit_world.claims(alive=False)).claim("tester", events) == [FIRST] * 3
    assert await pipeline(rabbit_world.deliver(events)) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 1, 2]
    assert await rabbit_world.dead_letters() == []


async def test_without_redis_the_inbox_alone_keeps_effects_single(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(redis_timeout_s=0.5)
    early, late = happened(1), happened(2)
    await pipeline(rabbit_world.deliver([early]))
    await asyncio.to_thread(rabbit_world.runtime.processes.stop, "redis")
    try:
        for _ in range(3):
            assert await pipeline(rabbit_world.deliver([early, late])) == [ACK] * 2
    finally:
        await asyncio.to_thread(rabbit_world.runtime.processes.start, "redis")
    assert await pipeline(rabbit_world.deliver([early, late])) == [ACK] * 2
    assert await rabbit_world.numbers() == [1, 2]


async def test_the_pipeline_reads_what_another_schema_version_left_alone(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(on_happened)
    tolerant = happened(1, data={"number": 1, "added": {"by": "a newer producer"}})
    without_schema = happened(2, dataschema=None)
    assert await pipeline(rabbit_world.deliver([tolerant, without_schema])) == [ACK] * 2
    assert await rabbit_world.numbers() == [1, 2]
