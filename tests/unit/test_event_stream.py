"""Event streams: they say that they live, end when they should, are bounded, and keep nothing for slow readers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from starlette.types import Message, Receive

from shared.errors import UnavailableError
from shared.http.event_stream import EventStream, EventStreams, ServerEvent

DEADLINE_S = 60.0


class Counting:
    """Tells of each look with its number; nothing at those of `silent`, and is away at those of `away`."""

    def __init__(self, end: int, silent: Sequence[int] = (), away: Sequence[int] = ()) -> None:
        self.looks = 0
        self._end = end
        self._silent = silent
        self._away = away

    @property
    def is_over(self) -> bool:
        return self.looks >= self._end

    async def look(self) -> Sequence[ServerEvent]:
        self.looks += 1
        if self.looks in self._away:
            raise UnavailableError("not now")
        return [] if self.looks in self._silent else [ServerEvent("look", str(self.looks), f"n{self.looks}")]


class Reader:
    """What was sent; the reader takes the next part only while `may_read` is set."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        await self.may_read.wait()

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def body(self) -> str:
        return b"".join(message.get("body", b"") for message in self.messages).decode()

    async def read(self, stream: EventStream, method: str = "GET") -> None:
        scope = {"type": "http", "method": method, "path": "/", "asgi": {"spec_version": "2.4"}, "headers": []}
        async with asyncio.timeout(DEADLINE_S):
            await stream(scope, forever(), self.send)


def forever() -> Receive:
    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    return receive


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until it is true; the caller has a deadline."""
    while True:
        if condition():
            return
        await asyncio.sleep(0)


def streams(stopping: asyncio.Event | None = None, **more: float) -> EventStreams:
    given = {"look_interval_s": 0.001, "sign_of_life_s": DEADLINE_S, **more}
    return EventStreams(stopping or asyncio.Event(), streams_max=1, **given)


async def test_a_stream_tells_of_each_change_and_ends_with_what_it_tells_of() -> None:
    reader = Reader()
    await reader.read(streams().response([ServerEvent("look", "0")], Counting(3, silent=[2])))
    assert reader.status == 200
    assert reader.body == (
        "event: look\ndata: 0\n\nevent: look\ndata: 1\nid: n1\n\nevent: look\ndata: 3\nid: n3\n\n"
    )


async def test_a_stream_without_changes_says_that_it_lives() -> None:
    reader = Reader()
    await reader.read(streams(sign_of_life_s=0.0).response([], Counting(4, silent=[1, 2, 3])))
    assert reader.body == ": alive\n\n" * 3 + "event: look\ndata: 4\nid: n4\n\n"


async def test_a_database_that_is_away_ends_no_stream() -> None:
    reader = Reader()
    await reader.read(streams().response([], Counting(3, away=[1, 2])))
    assert reader.body == "event: look\ndata: 3\nid: n3\n\n"


async def test_streams_end_when_the_process_is_told_to_stop() -> None:
    stopping, reader = asyncio.Event(), Reader()
    never = Counting(10**9, silent=range(10**9))
    reading = asyncio.create_task(reader.read(streams(stopping).response([ServerEvent("look", "0")], never)))
    async with asyncio.timeout(DEADLINE_S):
        await until(lambda: never.looks >= 3)
        stopping.set()
        await reading
    assert reader.body == "event: look\ndata: 0\n\n"


async def test_more_streams_than_may_be_open_are_refused_until_one_ends() -> None:
    bounded, first, second = streams(), Reader(), Reader()
    first.may_read.clear()
    reading = asyncio.create_task(first.read(bounded.response([ServerEvent("look", "0")], Counting(0))))
    async with asyncio.timeout(DEADLINE_S):
        await until(lambda: bool(first.messages))
        await second.read(bounded.response([], Counting(0)))
        assert (second.status, b"5" in dict(second.messages[0]["headers"])[b"retry-after"]) == (503, True)
        first.may_read.set()
        await reading
    third = Reader()
    await third.read(bounded.response([], Counting(0)))
    assert (third.status, bounded.open) == (200, 0)


async def test_nothing_is_looked_up_for_a_reader_who_does_not_read() -> None:
    reader, counting = Reader(), Counting(5)
    reading = asyncio.create_task(reader.read(streams().response([ServerEvent("look", "0")], counting)))
    async with asyncio.timeout(DEADLINE_S):
        await until(lambda: counting.looks >= 2)
        reader.may_read.clear()
        sent = len(reader.messages)
        await until(lambda: len(reader.messages) > sent)
        looks = counting.looks
        await asyncio.sleep(0.01)  # ten times as long as between two looks
        assert (counting.looks, len(reader.messages)) == (looks, sent + 1)
        reader.may_read.set()
        await reading
    assert reader.body.count("event: look") == 6


async def test_who_asks_for_the_head_alone_opens_no_stream() -> None:
    reader, never = Reader(), Counting(10**9)
    await reader.read(streams().response([], never), method="HEAD")
    assert (reader.status, reader.body, never.looks) == (200, "", 0)
