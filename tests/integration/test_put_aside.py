"""What leaves a subscriber's stream: failed, delayed until it is due, or with a receipt for an effect recorded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import structs

from shared.broker.base import BODY_BYTES_MAX, DeadLetter, Delivery, Settlement
from shared.dead_letter import headers as dead_letter
from shared.dead_letter.headers import KEY_BYTES_MAX, KEY_LEFT_OUT, Kind
from shared.envelope import Envelope
from shared.errors import BusinessError, DelayError, TransientError
from shared.event import Event
from shared.publishing.uow import UnitOfWork
from tests.integration.world import HandlerFunction, Happened, World, happened, take_effect

ACK = Settlement.ACK
LETTER = "0198c0de-0000-7000-8000-000000000001"
BACK = {dead_letter.LETTER_ID: LETTER, dead_letter.REDRIVE: "3"}


def raising(error: Exception, *numbers: int) -> HandlerFunction:
    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        if event.data.number in numbers:
            raise error

    return handle


def given_back(world: World, event: Envelope | bytes, headers: Mapping[str, str] = BACK) -> Delivery:
    return structs.replace(world.deliver([event])[0], headers=dict(headers))


def delay_s(letter: DeadLetter) -> float:
    """As this version reads it and as the one before did."""
    due = datetime.fromisoformat(letter.headers[dead_letter.DUE_AT])
    by_clock_s = (due - datetime.fromisoformat(letter.headers[dead_letter.FAILED_AT])).total_seconds()
    said_s = float(letter.headers[dead_letter.DELAY_S])
    assert abs(said_s - by_clock_s) < 1
    return said_s


async def test_what_may_pass_waits_longer_each_time(rabbit_world: World) -> None:
    runs: list[int] = []

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        runs.append(event.data.number)
        raise TransientError("not yet")

    pipeline = await rabbit_world.pipeline(handle, delay_initial_s=100, delay_max_s=300, handler_attempts_max=2)
    event = happened(1)
    for delays in (0, 1, 2):
        delivery = given_back(rabbit_world, event, {dead_letter.DELAYS: str(delays)})
        assert await pipeline([delivery]) == [ACK]
    letters = await rabbit_world.await_dead_letters(3)
    assert [letter.headers[dead_letter.KIND] for letter in letters] == [Kind.DELAYED] * 3
    assert [letter.headers[dead_letter.DELAYS] for letter in letters] == ["1", "2", "3"]
    for letter, longest_s in zip(letters, (100, 200, 300), strict=True):
        assert longest_s / 2 <= delay_s(letter) <= longest_s
    assert len(runs) == 6, "short retries come first"
    assert len({letter.headers[dead_letter.LETTER_ID] for letter in letters}) == 1


async def test_delays_are_bounded_in_number_and_in_time(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(
        raising(TransientError("never"), 1), delays_max=4, delay_total_max_s=600.0
    )
    long_ago = (datetime.now(UTC) - timedelta(seconds=601)).isoformat()
    often = given_back(rabbit_world, happened(1), {dead_letter.DELAYS: "4"})
    old = given_back(rabbit_world, happened(1), {dead_letter.DELAYS: "1", dead_letter.FIRST_FAILED_AT: long_ago})
    young = given_back(rabbit_world, happened(1), {dead_letter.DELAYS: "3"})
    aged = given_back(rabbit_world, happened(1), {dead_letter.AGE_S: "601.5"})
    # Somebody's clock is wrong: how long it has been since, they said beside it.
    just_now = {dead_letter.AGE_S: "1", dead_letter.FIRST_FAILED_AT: long_ago}
    for delivery in (often, old, young, aged, given_back(rabbit_world, happened(1), just_now)):
        assert await pipeline([delivery]) == [ACK]
    kinds = [letter.headers[dead_letter.KIND] for letter in await rabbit_world.await_dead_letters(5)]
    assert kinds == [Kind.FAILED, Kind.FAILED, Kind.DELAYED, Kind.FAILED, Kind.DELAYED]


async def test_nobodys_fault_is_delayed_alone_at_once_and_uses_nothing_up(rabbit_world: World) -> None:
    runs: list[int] = []

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        runs.append(event.data.number)
        take_effect(event, uow)
        if event.data.number == 1:
            raise DelayError("the mail server is away", delay_s=30)

    pipeline = await rabbit_world.pipeline(handle, delays_max=0)
    assert await pipeline(rabbit_world.deliver([happened(n) for n in range(3)])) == [ACK] * 3
    assert await rabbit_world.numbers() == [0, 2]
    assert runs == [0, 1, 2], "nothing was rolled back and run again"
    [letter] = await rabbit_world.await_dead_letters(1)
    assert letter.headers[dead_letter.KIND] == Kind.DELAYED
    assert letter.headers[dead_letter.DELAYS] == "0"
    assert delay_s(letter) == 30


async def test_a_subscription_says_which_exceptions_may_pass(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(raising(LookupError("not there yet"), 1), transient=(LookupError,))
    assert await pipeline(rabbit_world.deliver([happened(1)])) == [ACK]
    other = await rabbit_world.pipeline(raising(LookupError("not there yet"), 2))
    assert await other(rabbit_world.deliver([happened(2)])) == [ACK]
    kinds = [letter.headers[dead_letter.KIND] for letter in await rabbit_world.await_dead_letters(2)]
    assert kinds == [Kind.DELAYED, Kind.FAILED]


async def test_a_letter_that_was_given_back_gets_a_receipt_when_its_effect_is_recorded(world: World) -> None:
    pipeline = await world.pipeline()
    event, ignored = happened(1), Envelope(source="/tests", type="thing.ignored", data={})
    batch = [given_back(world, event), given_back(world, ignored), *world.deliver([happened(2)])]
    assert await pipeline(batch) == [ACK] * 3
    assert await pipeline([given_back(world, event, BACK | {dead_letter.REDRIVE: "4"})]) == [ACK]
    receipts = await world.await_dead_letters(3)
    assert await world.numbers() == [1, 2], "lost or doubled"
    assert len(receipts) == 3, "only what was given back gets one"
    assert {receipt.headers[dead_letter.KIND] for receipt in receipts} == {Kind.RECEIPT}
    assert {receipt.headers[dead_letter.LETTER_ID] for receipt in receipts} == {LETTER}
    assert sorted(receipt.headers[dead_letter.REDRIVE] for receipt in receipts) == ["3", "3", "4"]


async def test_a_letter_that_fails_again_keeps_its_id_and_number_and_gets_no_receipt(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(raising(BusinessError("no"), 1))
    event = happened(1)
    # The event itself, by the side of its letter: the answer is the letter's.
    batch = [*rabbit_world.deliver([event]), given_back(rabbit_world, event), given_back(rabbit_world, b"garbage")]
    assert await pipeline(batch) == [ACK] * 3
    letters = await rabbit_world.await_dead_letters(2)
    assert len(letters) == 2
    for letter in letters:
        assert letter.headers[dead_letter.KIND] == Kind.FAILED
        assert letter.headers[dead_letter.LETTER_ID] == LETTER
        assert letter.headers[dead_letter.REDRIVE] == "3"


async def test_a_letter_has_the_same_id_whenever_its_event_fails(rabbit_world: World) -> None:
    pipeline = await rabbit_world.pipeline(raising(BusinessError("no"), 1))
    event: Any = happened(1)
    for _ in range(2):
        await pipeline(rabbit_world.deliver([event]))
    await pipeline(rabbit_world.deliver([structs.replace(event, id="another")]))
    letters = await rabbit_world.await_dead_letters(3)
    ids = [letter.headers[dead_letter.LETTER_ID] for letter in letters]
    assert ids[0] == ids[1] != ids[2]


async def test_a_letter_that_no_broker_can_encode_goes_with_its_body_alone(world: World) -> None:
    """It would come again for ever, and with it everything behind it."""
    unspeakable = "no encoding takes \ud800"
    pipeline = await world.pipeline(raising(BusinessError(unspeakable), 1))
    event = happened(1)
    assert await pipeline([given_back(world, event, {"their-own": "x"})]) == [ACK]
    (letter,) = await world.await_dead_letters(1)
    assert letter.body == event.encode()
    assert letter.headers[dead_letter.ERROR_MESSAGE] == unspeakable.replace("\ud800", "\\ud800")
    assert letter.headers[dead_letter.HEADERS_LEFT_OUT] == "1"
    assert "their-own" not in letter.headers


async def test_a_key_that_leaves_no_room_for_the_rest_stays_behind(kafka_world: World) -> None:
    pipeline = await kafka_world.pipeline()
    body = b"x" * BODY_BYTES_MAX
    for size in (KEY_BYTES_MAX, 2 * 1024 * 1024):
        assert await pipeline([structs.replace(given_back(kafka_world, body), key="k" * size)]) == [ACK]
    letters = await kafka_world.await_dead_letters(2)
    assert [len(letter.body) for letter in letters] == [len(body)] * 2
    assert {letter.headers.get(KEY_LEFT_OUT) for letter in letters} == {None, str(2 * 1024 * 1024)}
    assert dead_letter.HEADERS_LEFT_OUT not in {name for letter in letters for name in letter.headers}
