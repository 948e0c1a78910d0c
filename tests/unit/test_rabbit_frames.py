"""Frames cut out of the buffer are those that aiormq's own reader would have read, however they arrive."""

from __future__ import annotations

import asyncio
from typing import Any

import aiormq.connection
import pytest
from aiormq.connection import FrameReceiver
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from pamqp import commands
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from shared.broker.rabbit import frames
from shared.broker.rabbit.frames import BufferedFrameReceiver

OWN: type[FrameReceiver] = BufferedFrameReceiver.__mro__[1]
"""By that name aiormq has ours, once a connection of ours was made in this process."""
DELIVERED = [
    marshal(commands.Basic.Deliver("tag", 7, False, "thing", "thing.happened"), 3),
    marshal(ContentHeader(0, 300, commands.Basic.Properties(content_type="a", headers={"number": "7"})), 3),
    marshal(ContentBody(b"\xce" * 300), 3),
]
STREAM = [marshal(Heartbeat(), 0), *DELIVERED, marshal(commands.Basic.Ack(9, True), 1), *DELIVERED]


class Transport:
    """Counts what a paused reader asks of its transport."""

    def __init__(self) -> None:
        self.resumed = 0

    def pause_reading(self) -> None:
        """It always may be."""

    def resume_reading(self) -> None:
        self.resumed += 1


async def read_all(receiver: FrameReceiver, pieces: list[bytes], *, ends: bool = True) -> list[Any]:
    """What is read while the pieces arrive one after the other."""
    found: list[Any] = []

    async def read() -> None:
        async for size, channel, frame in receiver:
            if isinstance(frame, ContentBody):
                said: Any = frame.value
            elif isinstance(frame, ContentHeader):
                said = (frame.body_size, frame.properties)
            else:
                assert isinstance(frame, Frame | Heartbeat)
                said = {} if isinstance(frame, Heartbeat) else dict(frame)
            found.append((size, channel, type(frame), said))

    reading = asyncio.create_task(read())
    reader = receiver.reader
    for piece in pieces:
        await asyncio.sleep(0)
        reader.feed_data(piece)
    if ends:
        reader.feed_eof()
    await reading
    return found


def receiver(kind: type[FrameReceiver], limit: int = 2**16) -> FrameReceiver:
    return kind(asyncio.StreamReader(limit=limit))


@pytest.mark.parametrize("size", [1, 5, 7, 8, 9, 60, 400, 10_000])
async def test_frames_that_arrive_in_pieces_are_those_that_aiormq_reads(size: int) -> None:
    whole = b"".join(STREAM)
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    expected = await read_all(receiver(OWN), pieces)
    assert len(expected) == len(STREAM)
    assert await read_all(receiver(BufferedFrameReceiver), pieces) == expected


async def test_a_frame_that_is_cut_off_is_a_lost_connection() -> None:
    with pytest.raises(AMQPConnectionError, match="unexpectedly closed"):
        await read_all(receiver(BufferedFrameReceiver), [*STREAM, DELIVERED[2][:-1]])


async def test_a_frame_with_a_wrong_end_is_refused() -> None:
    with pytest.raises(InvalidFrameError):
        await read_all(receiver(BufferedFrameReceiver), [STREAM[0], DELIVERED[0][:-1] + b"\0"])


async def test_a_lost_connection_is_told_before_what_had_arrived() -> None:
    """As aiormq does: what was not acknowledged comes again."""
    ours = receiver(BufferedFrameReceiver)
    ours.reader.feed_data(STREAM[0] * 3)
    await ours.get_frame()
    ours.reader.set_exception(ConnectionResetError("gone"))
    with pytest.raises(AMQPConnectionError, match="gone"):
        await ours.get_frame()


async def test_a_reader_that_was_paused_reads_on() -> None:
    ours, transport = receiver(BufferedFrameReceiver, limit=100), Transport()
    ours.reader.set_transport(transport)  # type: ignore[arg-type]
    ours.reader.feed_data(b"".join(STREAM))
    for _ in STREAM:
        await ours.get_frame()
    assert transport.resumed == 1


async def test_whole_frames_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short way is there: after the first frame aiormq's own is not asked any more."""
    asked = 0
    own = OWN.get_frame

    async def counted(self: FrameReceiver) -> Any:
        nonlocal asked
        asked += 1
        return await own(self)

    monkeypatch.setattr(OWN, "get_frame", counted)
    ours = receiver(BufferedFrameReceiver)
    ours.reader.feed_data(b"".join(STREAM))
    for _ in STREAM:
        await ours.get_frame()
    assert asked == 1


def test_connections_are_made_with_it() -> None:
    frames.read_frames_from_the_buffer()
    assert aiormq.connection.FrameReceiver is BufferedFrameReceiver
