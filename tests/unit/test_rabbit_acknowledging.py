"""What comes by itself is acknowledged with others, soon, and in an order that the server takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiormq.exceptions import ChannelInvalidStateError

from shared.broker.base import Settlement
from shared.broker.rabbit import acknowledging
from shared.broker.rabbit.acknowledging import Acknowledging
from shared.broker.rabbit.window import Held, Window

ACK, RETRY = Settlement.ACK, Settlement.RETRY


class Channel:
    """Takes acknowledgements as RabbitMQ does: of what is not unsettled there is none."""

    def __init__(self) -> None:
        self.is_closed = False
        self.unsettled: list[int] = []
        self.took: list[tuple[int, bool]] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def basic_ack(self, tag: int, multiple: bool = False) -> None:
        if self.is_closed:
            raise ChannelInvalidStateError("closed")
        settled = [one for one in self.unsettled if one <= tag] if multiple else [tag]
        assert settled, "an unknown delivery tag closes the channel"
        assert set(settled) <= set(self.unsettled), "an unknown delivery tag closes the channel"
        self.unsettled = [one for one in self.unsettled if one not in settled]
        self.took.append((tag, multiple))
        await self.reads.wait()


class Consuming:
    """A consumer that takes in hand whatever it is sent."""

    def __init__(self, in_flight_max: int = 128) -> None:
        self.window = Window(1_000_000, ordered=True)
        self.acknowledging = Acknowledging("thing", in_flight_max)
        self.channel = Channel()
        self.tag = 0

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.tag += 1
            self.channel.unsettled.append(self.tag)
            raw: Any = None
            self.window.arrive(Held(raw, self.channel, self.tag, 1))

    async def settle(self, *settlements: Settlement) -> None:
        held = self.window.take(len(settlements))
        await self.acknowledging.settle(held, settlements, self.window)
        self.window.settled([one for one, each in zip(held, settlements, strict=True) if each is not ACK])

    async def handle(self, *counts: int) -> None:
        """So many, one batch after the other."""
        for count in counts:
            self.send(count)
            await self.settle(*[ACK] * count)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledging, "_WAIT_S", 0.001)


async def until_took(channel: Channel, expected: Sequence[tuple[int, bool]]) -> None:
    async with asyncio.timeout(10):
        while channel.took != expected:  # noqa: ASYNC110 - a timer has no event to await
            await asyncio.sleep(0.001)


async def test_what_comes_by_itself_waits_for_others_and_goes_with_them() -> None:
    consuming = Consuming()
    await consuming.handle(*[1] * 16)
    assert consuming.channel.took == []
    await consuming.handle(1)
    assert consuming.channel.took == [(17, True)]
    assert consuming.channel.unsettled == []


async def test_it_goes_with_a_full_batch_and_that_does_not_wait() -> None:
    consuming = Consuming()
    await consuming.handle(1, 1, 100)
    assert consuming.channel.took == [(102, True)]


@pytest.mark.usefixtures("soon")
async def test_it_waits_for_a_moment_only() -> None:
    consuming = Consuming()
    await consuming.handle(1, 2)
    await until_took(consuming.channel, [(3, True)])
    await consuming.handle(1)
    await until_took(consuming.channel, [(3, True), (4, True)])


@pytest.mark.usefixtures("soon")
async def test_while_the_server_does_not_read_more_comes_to_wait_and_nothing_goes_twice() -> None:
    consuming = Consuming()
    consuming.channel.reads.clear()
    await consuming.handle(1)
    await until_took(consuming.channel, [(1, True)])
    await consuming.handle(1, 1)
    await asyncio.sleep(0.02)
    assert consuming.channel.took == [(1, True)]
    consuming.channel.reads.set()
    await until_took(consuming.channel, [(1, True), (3, True)])


async def test_what_waits_at_the_end_is_sent_before_the_rest_is_given_back() -> None:
    consuming = Consuming()
    await consuming.handle(1)
    consuming.send()
    await consuming.acknowledging.send_now()
    await consuming.acknowledging.send_now()
    assert consuming.channel.took == [(1, True)]
    assert consuming.channel.unsettled == [2]


async def test_what_is_retried_is_not_covered_by_what_comes_behind_it() -> None:
    consuming = Consuming()
    await consuming.handle(1)
    consuming.send(3)
    await consuming.settle(ACK, RETRY, ACK)
    assert consuming.channel.took == [(2, True), (4, False)]
    await consuming.settle(ACK)
    await consuming.acknowledging.send_now()
    assert consuming.channel.took == [(2, True), (4, False), (3, True)]


async def test_a_batch_of_which_nothing_is_settled_lets_nothing_wait() -> None:
    consuming = Consuming()
    await consuming.handle(1)
    consuming.send()
    await consuming.settle(RETRY)
    assert consuming.channel.took == [(1, True)]


async def test_what_waited_when_the_channel_went_has_failed_and_the_next_channel_is_not_told_of_it() -> None:
    consuming = Consuming()
    await consuming.handle(1, 1)
    consuming.channel.is_closed = True
    gone, consuming.channel, consuming.tag = consuming.channel, Channel(), 0
    await consuming.handle(1)
    assert consuming.acknowledging.failures == 2
    await consuming.acknowledging.send_now()
    assert (gone.took, consuming.channel.took) == ([], [(1, True)])


@pytest.mark.parametrize("in_flight_max", [1, 2, 3])
async def test_where_few_may_be_in_flight_nothing_waits(in_flight_max: int) -> None:
    consuming = Consuming(in_flight_max)
    await consuming.handle(1, 1)
    assert consuming.channel.took == [(1, True), (2, True)]
