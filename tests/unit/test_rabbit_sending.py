"""What is published at once is what aiormq would have published one by one, and is confirmed where it confirms."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from weakref import ref

import aiormq
import pytest
from aiormq.exceptions import ChannelInvalidStateError, DeliveryError, PublishError
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from shared.broker.rabbit import sending
from shared.broker.rabbit.arriving import ChannelAtOnce
from shared.broker.rabbit.sending import Confirmations, Portion, publish_at_once

NUMBER = 3
FRAME_MAX = 4_096
JSON = "application/json"
BODIES = [b"", b"{}", b"x" * (FRAME_MAX - 8), b"y" * (FRAME_MAX - 7), b"z" * (3 * FRAME_MAX)]
Properties = commands.Basic.Properties


OPEN: list[Channel] = []


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    """No channel goes on reading behind its test."""
    yield
    for channel in OPEN:
        await channel._cancel_tasks(None)
    OPEN.clear()


class Channel(ChannelAtOnce):
    """One of a connection that nobody has made: what would be sent, and what comes is given to it."""

    def __init__(self) -> None:
        connection: Any = aiormq.Connection("amqp://127.0.0.1:1/")
        connection.connection_tune = SimpleNamespace(frame_max=FRAME_MAX, heartbeat=0)
        connection.server_properties = {"capabilities": {"publisher_confirms": True}}
        super().__init__(connection, NUMBER, publisher_confirms=True, frame_buffer=100)
        OPEN.append(self)

    async def come(self, *frames: Any) -> None:
        for frame in frames:
            await self.frames.put((1, frame))
        await asyncio.wait_for(self.frames.join(), 5)
        for _ in range(3):
            await asyncio.sleep(0)

    def sent(self) -> bytes:
        written = b""
        while not self.write_queue.empty():
            written += self.write_queue.get_nowait().payload
        return written


async def publish(channel: Channel, *bodies: bytes) -> Confirmations:
    return await publish_at_once(
        channel, Portion("order.events", [("order.placed", JSON, body) for body in bodies])
    )


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


def ack(number: int, *, multiple: bool = False) -> commands.Basic.Ack:
    return commands.Basic.Ack(number, multiple)


async def test_the_same_bytes_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = Channel(), Channel()
    monkeypatch.setattr(sending, "getrandbits", lambda _bits: 7)
    confirmations = await publish(ours, *BODIES)
    publishing = []
    for number, body in enumerate(BODIES):
        message_id = f"{7:024x}{number:08x}"
        properties = Properties(content_type=JSON, delivery_mode=2, headers={}, message_id=message_id)
        one = theirs.basic_publish(
            body,
            exchange="order.events",
            routing_key="order.placed",
            properties=properties,
            mandatory=True,
            wait=False,
        )
        publishing.append(asyncio.create_task(one))
        await asyncio.sleep(0.001)
    assert ours.sent() == theirs.sent()
    assert (ours.delivery_tag, list(ours.confirmations)) == (theirs.delivery_tag, list(theirs.confirmations))
    for task in publishing:
        task.cancel()
    assert ours.message_id_delivery_tag == theirs.message_id_delivery_tag
    assert len(confirmations.each) == len(BODIES)


async def test_each_is_confirmed_one_by_one_or_many_at_once() -> None:
    channel = Channel()
    confirmations = await publish(channel, b"1", b"2", b"3", b"4")
    await channel.come(ack(2))
    assert [each.done() for each in confirmations.each] == [False, True, False, False]
    await channel.come(ack(3, multiple=True))
    assert [each.done() for each in confirmations.each] == [True, True, True, False]
    await channel.come(commands.Basic.Nack(4))
    errors = await confirmations.outcomes(soon())
    assert errors[:3] == [None] * 3
    assert isinstance(errors[3], DeliveryError)
    assert (dict(channel.confirmations), channel.message_id_delivery_tag) == ({}, {})


async def test_what_is_returned_is_told_from_what_is_confirmed() -> None:
    channel = Channel()
    confirmations = await publish(channel, b"1", b"2")
    [returned, _] = channel.message_id_delivery_tag
    header = ContentHeader(0, 1, Properties(message_id=returned))
    channel.on_return_raises = True
    back = commands.Basic.Return(312, "NO_ROUTE", "order.events", "order.placed")
    await channel.come(back, header, ContentBody(b"1"), ack(2, multiple=True))
    errors = await confirmations.outcomes(soon())
    assert isinstance(errors[0], PublishError)
    assert errors[1] is None
    assert channel.message_id_delivery_tag == {}


async def test_numbers_go_on_with_what_others_publish_on_the_channel() -> None:
    channel = Channel()
    ours = await publish(channel, b"1", b"2")
    theirs = asyncio.create_task(channel.basic_publish(b"3", routing_key="x", wait=False))
    await asyncio.sleep(0.001)
    again = await publish(channel, b"4")
    assert list(channel.confirmations) == [1, 2, 3, 4]
    await channel.come(ack(4, multiple=True))
    assert [await each.outcomes(soon()) for each in (ours, again)] == [[None] * 2, [None]]
    await asyncio.wait_for(theirs, 5)


async def test_what_is_not_confirmed_in_time_is_left_and_confirmed_in_vain() -> None:
    channel = Channel()
    confirmations = await publish(channel, b"1", b"2")
    await channel.come(ack(1))
    errors = await confirmations.outcomes(asyncio.get_running_loop().time())
    assert errors[0] is None
    assert isinstance(errors[1], TimeoutError)
    assert channel.message_id_delivery_tag == {}, "nothing is returned any more"
    await channel.come(ack(2))
    assert dict(channel.confirmations) == {}


async def test_whoever_waits_no_more_is_not_told_of_what_comes_late(caplog: pytest.LogCaptureFixture) -> None:
    channel = Channel()
    confirmations = await publish(channel, b"1", b"2")
    waiting = asyncio.create_task(confirmations.outcomes(soon()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await channel.come(ack(1), commands.Basic.Nack(2))
    assert (dict(channel.confirmations), channel.message_id_delivery_tag) == ({}, {})
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


@pytest.mark.parametrize("answer", [ack(2, multiple=True), None])
async def test_what_has_ended_leaves_nothing_to_a_garbage_collector(answer: commands.Basic.Ack | None) -> None:
    channel = Channel()
    confirmations = await publish(channel, b"1", b"2")
    if answer is not None:
        await channel.come(answer)
    await confirmations.outcomes(asyncio.get_running_loop().time())
    await channel.come(ack(2, multiple=True))
    gc.disable()
    try:
        left = ref(confirmations)
        del confirmations
        await asyncio.sleep(0)
        assert left() is None
    finally:
        gc.enable()


async def test_a_channel_that_is_closed_fails_what_it_has_not_confirmed() -> None:
    channel = Channel()
    confirmations = await publish(channel, b"1", b"2")
    await channel.come(ack(1))
    waiting = asyncio.create_task(confirmations.outcomes(soon()))
    reason = ChannelInvalidStateError("planted")
    await channel._cancel_tasks(reason)
    errors = await waiting
    assert errors[0] is None
    assert errors[1] is reason


async def test_what_was_never_written_takes_no_number() -> None:
    channel = Channel()
    for _ in range(channel.write_queue.maxsize):
        channel.write_queue.put_nowait(SimpleNamespace(payload=b""))
    publishing = asyncio.create_task(publish(channel, b"1", b"2"))
    await asyncio.sleep(0.001)
    assert channel.delivery_tag == 2
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert (channel.delivery_tag, dict(channel.confirmations), channel.message_id_delivery_tag) == (0, {}, {})


@pytest.mark.parametrize(("routing_key", "content_type"), [("x" * 256, JSON), ("x", "y" * 256), ("\ud800", JSON)])
async def test_what_amqp_cannot_express_is_refused_before_anything_is_written(
    routing_key: str, content_type: str
) -> None:
    channel = Channel()
    told = [("x", JSON, b"1"), (routing_key, content_type, b"2")]
    with pytest.raises((ValueError, TypeError)):
        await publish_at_once(channel, Portion("order.events", told))
    assert (channel.delivery_tag, channel.sent()) == (0, b"")


def test_aiormq_keeps_confirmations_where_they_are_put() -> None:
    source = inspect.getsource(aiormq.Channel)
    for used in ("self.confirmations[delivery_tag] = confirmation", "self.message_id_delivery_tag[message_id]"):
        assert used in source, used
