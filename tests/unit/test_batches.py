"""Batches in the hands of handlers: some keep failures apart, some break, some are taken up ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from shared.broker.base import Delivery, Settlement, Subscription
from shared.broker.batches import Ahead, BatchInHand, isolating, takes_ahead
from shared.errors import UnavailableError

ACK, RETRY = Settlement.ACK, Settlement.RETRY


def deliveries(*bodies: bytes) -> list[Delivery]:
    return [Delivery(body, {}, "order", None, False, f"order#{body!r}", None) for body in bodies]


async def test_only_what_fails_alone_comes_again() -> None:
    kept: list[bytes] = []

    async def keep(batch: Sequence[Delivery]) -> None:
        if any(delivery.body == b"bad" for delivery in batch):
            raise ValueError("planted")
        kept.extend(delivery.body for delivery in batch)

    assert await isolating(keep)(deliveries(b"1", b"bad", b"2")) == [ACK, RETRY, ACK]
    assert kept == [b"1", b"2"]
    assert await isolating(keep)(deliveries(b"3", b"4")) == [ACK] * 2


async def test_a_server_that_is_away_is_not_asked_for_each() -> None:
    calls: list[int] = []

    async def keep(batch: Sequence[Delivery]) -> None:
        calls.append(len(batch))
        raise UnavailableError("planted")

    assert await isolating(keep)(deliveries(b"1", b"2")) == [RETRY] * 2
    assert calls == [2]


class Preparing:
    """Says what was done with each batch, in order; breaks where it is told to."""

    def __init__(self, breaks: str = "") -> None:
        self.done: list[str] = []
        self.breaks = breaks

    async def __call__(self, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        return await (await self.prepare(batch)).run()

    async def prepare(self, batch: Sequence[Delivery]) -> Prepared:
        self.do("prepare")
        return Prepared(self, batch)

    def do(self, what: str) -> None:
        self.done.append(what)
        if what == self.breaks:
            raise ValueError("planted")


@dataclass
class Prepared:
    handler: Preparing
    batch: Sequence[Delivery]

    async def run(self) -> Sequence[Settlement]:
        self.handler.do("run")
        return [ACK] * (len(self.batch) - (self.handler.breaks == "count"))

    async def abandon(self) -> None:
        self.handler.do("abandon")


async def acknowledge(batch: Sequence[Delivery]) -> Sequence[Settlement]:
    return [ACK] * len(batch)


@pytest.mark.parametrize(
    ("count", "in_flight_max", "taken"), [(10, 20, True), (9, 20, False), (10, 19, False), (1, 20, False)]
)
def test_the_next_batch_is_taken_up_behind_a_full_one_where_there_is_room(
    count: int, in_flight_max: int, taken: bool
) -> None:
    subscription = Subscription(
        channel="order", subscriber="any", types=frozenset(), batch_max=10, in_flight_max=in_flight_max
    )
    assert takes_ahead(Preparing(), subscription, count) is taken
    assert not takes_ahead(acknowledge, subscription, count), "it cannot prepare"


async def test_a_batch_is_prepared_once_and_run_as_it_was_prepared() -> None:
    handler = Preparing()
    batch = BatchInHand(handler, deliveries(b"1", b"2"))
    await batch.prepare()
    await batch.prepare()
    assert await batch.run() == [ACK, ACK]
    assert handler.done == ["prepare", "run"]


async def test_a_handler_that_cannot_prepare_does_all_of_it_at_once() -> None:
    batch = BatchInHand(acknowledge, deliveries(b"1"))
    await batch.prepare()
    await batch.abandon()
    assert await batch.run() == [ACK]


@pytest.mark.parametrize("breaks", ["prepare", "run", "count"])
@pytest.mark.parametrize("ahead", [False, True])
async def test_whatever_breaks_the_whole_batch_comes_again(breaks: str, ahead: bool) -> None:
    batch = BatchInHand(Preparing(breaks), deliveries(b"1", b"2"))
    if ahead:
        await batch.prepare()
    assert await batch.run() == [RETRY, RETRY]


async def test_what_breaks_while_it_is_abandoned_is_told_and_stops_nobody() -> None:
    handler = Preparing("abandon")
    batch = BatchInHand(handler, deliveries(b"1"))
    await batch.prepare()
    await batch.abandon()
    assert handler.done == ["prepare", "abandon"]


@dataclass
class Taken:
    work: BatchInHand


async def taken_up(handler: Preparing, after: asyncio.Event | None = None) -> Taken:
    if after is not None:
        await after.wait()
    taken = Taken(BatchInHand(handler, deliveries(b"1")))
    await taken.work.prepare()
    return taken


async def test_what_was_taken_up_is_handed_out_once() -> None:
    ahead: Ahead[Taken] = Ahead()
    assert await ahead.take() is None
    assert await ahead.drop() is None
    ahead.begin(taken_up(handler := Preparing()), "ahead")
    assert ahead.begun
    taken = await ahead.take()
    assert taken is not None
    assert not ahead.begun
    assert await ahead.drop() is None
    assert handler.done == ["prepare"]


async def test_what_is_dropped_is_abandoned_if_it_was_prepared_and_ended_if_not() -> None:
    ahead: Ahead[Taken] = Ahead()
    ahead.begin(taken_up(handler := Preparing()), "ahead")
    await asyncio.sleep(0)
    assert await ahead.drop() is not None
    assert handler.done == ["prepare", "abandon"]
    ahead.begin(taken_up(handler := Preparing(), asyncio.Event()), "ahead")
    await asyncio.sleep(0)
    assert await ahead.drop() is None
    assert (handler.done, ahead.begun) == ([], False)


async def test_who_is_stopped_while_waiting_for_it_leaves_it_to_be_dropped() -> None:
    ahead: Ahead[Taken] = Ahead()
    ready = asyncio.Event()
    ahead.begin(taken_up(handler := Preparing(), ready), "ahead")
    waiting = asyncio.create_task(ahead.take())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    ready.set()
    await asyncio.sleep(0.01)
    assert ahead.begun
    assert await ahead.drop() is not None
    assert handler.done == ["prepare", "abandon"]


async def test_what_could_not_be_read_is_told_to_who_takes_it_and_not_to_who_drops_it() -> None:
    async def fails() -> Taken | None:
        raise KeyError("planted")

    ahead: Ahead[Taken] = Ahead()
    ahead.begin(fails(), "ahead")
    with pytest.raises(KeyError):
        await ahead.take()
    assert ahead.begun
    assert await ahead.drop() is None
    assert not ahead.begun
