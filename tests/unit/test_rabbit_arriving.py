"""What is handed over whole is what aiormq would have delivered, however it arrives, and nobody else notices."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import aiormq
import aiormq.connection
import pamqp.frame
import pytest
from aio_pika import Queue, RobustChannel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import InvalidFrameError
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from shared.broker.rabbit import arriving
from shared.broker.rabbit.arriving import Arrived, ChannelAtOnce, whole_delivery
from shared.broker.rabbit.frames import BufferedFrameReceiver

NUMBER = 3
TAG, OTHER = "tandem.here", "ctag1.other"
Properties = commands.Basic.Properties
USUAL = Properties(content_type="application/json", headers={}, delivery_mode=2, message_id="m" * 32)
SENT = [
    (USUAL, b"\xce" * 300, False),
    (USUAL, b"", False),
    (Properties(), b"nothing said", False),
    (Properties(message_id="alone"), b"2", True),
    (Properties(content_type="a", headers={"number": "7", "of": {"deep": 1}}), b"with headers", True),
    (
        Properties(
            content_type="a", content_encoding="b", headers={"c": "d"}, delivery_mode=1, priority=3,
            correlation_id="e", reply_to="f", expiration="60000", message_id="g",
            timestamp=datetime(2026, 1, 2, tzinfo=UTC), message_type="h", user_id="i", app_id="j",
        ),
        b"all of it",
        False,
    ),
]  # fmt: skip


def frames_of(
    properties: Properties,
    body: bytes,
    tag: str = TAG,
    *,
    number: int = 1,
    redelivered: bool = False,
    pieces: int = 1,
) -> list[bytes]:
    """A delivery as it is on the wire, its content in so many frames."""
    size = -(-len(body) // pieces)
    parts = [body[start : start + size] for start in range(0, len(body), size)] if body else []
    deliver = commands.Basic.Deliver(tag, number, redelivered, "thing.events", "thing.happened")
    header = ContentHeader(0, len(body), properties)
    bodies = [marshal(ContentBody(part), NUMBER) for part in parts]
    return [marshal(deliver, NUMBER), marshal(header, NUMBER), *bodies]


class Reading:
    """A channel whose frames are read as a connection reads them; what is handed over, and to whom."""

    def __init__(self) -> None:
        self.taken: list[Arrived] = []
        self.others: list[DeliveredMessage] = []
        connection: Any = aiormq.Connection("amqp://127.0.0.1:1/")
        connection.connection_tune = SimpleNamespace(frame_max=131_072, heartbeat=0)
        self.channel = ChannelAtOnce(connection, NUMBER, publisher_confirms=False, frame_buffer=10)
        self.channel.consumers[OTHER] = self._take_other
        self.receiver = BufferedFrameReceiver(asyncio.StreamReader())
        self.receiver.started = True

    async def _take_other(self, message: DeliveredMessage) -> None:
        self.others.append(message)

    async def read(self, *pieces: bytes) -> None:
        """Until all of them are read, each after the one before."""

        async def read() -> None:
            async for size, number, frame in self.receiver:
                assert number == NUMBER
                await self.channel.frames.put((size, frame))

        reading = asyncio.create_task(read())
        for piece in pieces:
            await asyncio.sleep(0)
            self.receiver.reader.feed_data(piece)
        self.receiver.reader.feed_eof()
        await reading
        await asyncio.wait_for(self.channel.frames.join(), 5)
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
async def reading() -> AsyncIterator[Reading]:
    reading = Reading()
    arriving._takes[TAG] = reading.taken.append
    yield reading
    arriving.forget(TAG)
    await reading.channel.close()


def said(properties: Properties) -> dict[str, Any]:
    return {name: value for name, value in dict(properties).items() if value not in (None, {})}


@pytest.mark.parametrize("size", [1, 9, 60, 400, 10_000])
@pytest.mark.parametrize("pieces", [1, 3])
async def test_deliveries_are_handed_over_as_they_were_sent(reading: Reading, size: int, pieces: int) -> None:
    whole = b"".join(
        frame
        for number, (properties, body, redelivered) in enumerate(SENT)
        for frame in frames_of(properties, body, number=number + 1, redelivered=redelivered, pieces=pieces)
    )
    await reading.read(*(whole[start : start + size] for start in range(0, len(whole), size)))
    assert [(one.delivery_tag, one.body, one.redelivered) for one in reading.taken] == [
        (number + 1, body, redelivered) for number, (_, body, redelivered) in enumerate(SENT)
    ]
    assert [said(one.properties) for one in reading.taken] == [said(properties) for properties, _, _ in SENT]
    assert [(one.content_type, dict(one.headers)) for one in reading.taken] == [
        (properties.content_type, properties.headers or {}) for properties, _, _ in SENT
    ]
    assert {(one.channel, one.exchange) for one in reading.taken} == {(reading.channel, "thing.events")}


async def test_what_is_here_whole_and_usual_is_not_decoded(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(_raw: bytes) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(pamqp.frame, "unmarshal", decode)
    monkeypatch.setattr(ContentHeader, "unmarshal", decode)
    await reading.read(b"".join(frames_of(USUAL, b"body") * 50))
    assert len(reading.taken) == 50


async def test_the_deliveries_of_others_go_aiormqs_way(reading: Reading) -> None:
    theirs = frames_of(USUAL, b"theirs", OTHER)
    await reading.read(b"".join([*theirs, *frames_of(USUAL, b"ours"), *theirs]))
    assert [message.body for message in reading.others] == [b"theirs"] * 2
    assert [one.body for one in reading.taken] == [b"ours"]


@pytest.mark.parametrize("size", [60, 10_000])
async def test_what_arrives_after_its_consumer_has_gone_is_dropped_and_the_channel_goes_on(
    reading: Reading, size: int
) -> None:
    def take_one(arrived: Arrived) -> None:
        reading.taken.append(arrived)
        arriving.forget(TAG)

    arriving._takes[TAG] = take_one
    whole = b"".join([*frames_of(USUAL, b"ours") * 3, *frames_of(USUAL, b"theirs", OTHER)])
    await reading.read(*(whole[start : start + size] for start in range(0, len(whole), size)))
    assert [one.body for one in reading.taken] == [b"ours"]
    assert [message.body for message in reading.others] == [b"theirs"]


async def test_frames_of_two_channels_that_come_in_turns_are_left_to_aiormq(reading: Reading) -> None:
    deliver, header, body = frames_of(USUAL, b"body")
    between = marshal(commands.Basic.Ack(9), NUMBER + 1)
    assert whole_delivery(bytearray(deliver + between + header + body)) is None
    assert whole_delivery(bytearray(deliver + header + between + body)) is None
    assert whole_delivery(bytearray(deliver + header + body)) is not None
    assert reading.taken == []


@pytest.mark.parametrize("cut", range(1, 160, 7))
async def test_what_has_not_come_whole_is_waited_for(reading: Reading, cut: int) -> None:
    raw = b"".join(frames_of(USUAL, b"a body of some length, so that it may be cut off"))
    assert whole_delivery(bytearray(raw[: len(raw) - cut])) is None
    assert reading.taken == []


async def test_who_is_cut_off_by_the_server_is_told_and_so_is_aio_pika(reading: Reading) -> None:
    ended: list[str | None] = []
    arriving._cut_offs[TAG] = lambda: ended.append("ours")
    reading.channel.on_consumer_cancel_callbacks.add(lambda frame: ended.append(frame.consumer_tag))
    asked_for, not_asked_for = commands.Basic.CancelOk(TAG), commands.Basic.Cancel(TAG)
    await reading.read(marshal(asked_for, NUMBER) + marshal(not_asked_for, NUMBER))
    assert ended == [TAG, "ours"]


def damaged() -> list[list[bytes]]:
    """Deliveries that no server sends."""
    deliver, header, body = frames_of(Properties(content_type="a", headers={"name": "value"}), b"body")
    endless = header[:7] + header[7:19] + b"\xff\xff" + header[21:]
    return [
        [deliver[:-1] + b"\0", header, body],
        [deliver, header[:-1] + b"\0", body],
        [deliver, header, body[:-1] + b"\0"],
        [deliver, endless, body],
    ]


@pytest.mark.parametrize("frames", damaged())
async def test_a_damaged_delivery_is_refused_as_aiormq_refuses_it(reading: Reading, frames: list[bytes]) -> None:
    with pytest.raises(InvalidFrameError):
        await reading.read(b"".join([*frames, *frames_of(USUAL, b"next")]))
    assert reading.taken == []


def test_lengths_that_are_wrong_are_not_taken_as_usual() -> None:
    arriving._takes[TAG] = lambda _arrived: None
    try:
        deliver, header = frames_of(USUAL, b"")
        shorter = bytearray(deliver + header)
        shorter[shorter.index(b"application/json") - 1] -= 1  # of the content type
        assert whole_delivery(shorter) is None
    finally:
        arriving.forget(TAG)


async def test_connections_make_such_channels_and_consumers_keep_their_tags() -> None:
    arriving.hand_over_at_once()
    assert vars(aiormq.connection)["Channel"] is ChannelAtOnce
    tag = arriving.new_tag()
    assert tag != arriving.new_tag()
    asked: dict[str, Any] = {}

    async def basic_consume(**told: Any) -> Any:
        asked.update(told)
        return commands.Basic.ConsumeOk(told["consumer_tag"])

    async def channel_below() -> Any:
        return SimpleNamespace(basic_consume=basic_consume)

    above: Any = SimpleNamespace(get_underlay_channel=channel_below)
    queue = Queue(above, "queue", durable=True, exclusive=False, auto_delete=False, arguments=None)
    try:
        await arriving.consume(queue, tag, lambda _arrived: None, lambda: None)
    finally:
        arriving.forget(tag)
    assert (asked["consumer_tag"], asked["no_ack"]) == (tag, False)
    assert "consumer_tag=tag" in inspect.getsource(RobustChannel._restore_missing_consumers)
