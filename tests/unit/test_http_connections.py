"""HTTP connections of a real server on a socket: half, slow and endless requests end, all others are answered."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from shared.http.errors import answer_errors
from shared.http.problems import BODY_BYTES_MAX
from shared.process.connections import Limits
from shared.process.server import server_config
from shared.settings import Settings

PATIENCE_S = 60.0
SHORT_S = 0.2
"""A limit that is to be reached; whatever is to keep within a limit has the real one."""
LARGE = 40_000_000
"""More than the buffers of a connection hold."""
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
LONG = b"Content-Length: 3000000\r\n\r\n"


class Served:
    """A server with an application of its own, in a thread with an event loop as the services have it."""

    def __init__(self, **limits: Any) -> None:
        self.release = threading.Event()
        routes = [
            Route("/echo", self.echo, methods=["GET", "POST"]),
            Route("/slow", self.slow),
            Route("/large", self.large),
            Route("/stream", self.stream),
        ]
        app = Starlette(routes=routes)
        answer_errors(app, LookupError, {})
        self.limits = Limits(**limits)
        settings = Settings(
            broker="rabbit", http_port=1, http_host="127.0.0.1", postgres_dsn="postgresql://nobody@127.0.0.1:1/x",
            redis_url="redis://127.0.0.1:1/0", rabbit_url="amqp://127.0.0.1:1",
        )  # fmt: skip
        self.server = uvicorn.Server(server_config(app, settings, self.limits))

    async def echo(self, request: Request) -> Response:
        return Response(await request.body())

    async def slow(self, _request: Request) -> Response:
        await asyncio.to_thread(self.release.wait, PATIENCE_S)
        return PlainTextResponse("at last")

    async def large(self, _request: Request) -> Response:
        return Response(b"x" * LARGE)

    async def stream(self, _request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            await asyncio.to_thread(self.release.wait, PATIENCE_S)
            yield b"at last"

        return StreamingResponse(parts())

    @property
    def count(self) -> int:
        return len(self.server.server_state.connections)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer; status 0 where the connection ends without one."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            except (asyncio.IncompleteReadError, ConnectionError):
                return 0, b""
            length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
            return int(head.split()[1]), await self.reader.readexactly(length)

    async def ended(self) -> bool:
        """Wait until the other side has closed; whether it sent nothing more before."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


Connect = Callable[[], Awaitable[Client]]


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[tuple[Served, Connect]]:
    served = Served(**limits)
    async with AsyncExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        thread = threading.Thread(target=served.server.run, args=([listening],), daemon=True)
        thread.start()

        async def stop() -> None:
            served.release.set()
            served.server.should_exit = served.server.force_exit = True
            await asyncio.to_thread(thread.join, PATIENCE_S)

        stack.push_async_callback(stop)
        await until(lambda: served.server.started)
        port = listening.getsockname()[1]

        async def connect() -> Client:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
            stack.callback(writer.transport.abort)
            return Client(reader, writer)

        yield served, connect


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the server runs in another thread
            await asyncio.sleep(0.01)


def problem(answer: tuple[int, bytes]) -> int:
    """The status of an answer that is a problem document of that status."""
    status, body = answer
    assert orjson.loads(body)["status"] == status
    return status


# -- half requests

HALVES = {
    "a method": b"PO",
    "half a head": b"POST /orders HTTP/1.1\r\nHost: x\r\n",
    "half a header": b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Long: aaa",
    "half a body": POST + b"Content-Length: 100\r\n\r\n[1,",
    "a head whose body does not come": POST + b"Content-Length: 100\r\n\r\n",
    "a chunk without its end": POST + CHUNKED + b"5\r\n[1,",
    "chunks without the last": POST + CHUNKED + b"3\r\n[1]\r\n",
    "half a trailer": POST + CHUNKED + b"3\r\n[1]\r\n0\r\nX: a",
}


@pytest.mark.parametrize("what", HALVES)
async def test_half_a_request_is_told_so_and_closed(what: str) -> None:
    async with serving(head_timeout_s=SHORT_S, body_timeout_s=SHORT_S) as (served, connect):
        client = await connect()
        await client.send(HALVES[what])
        assert problem(await client.answer()) == 408
        assert await client.ended()
        client.writer.close()
        await until(lambda: served.count == 0)


async def test_who_says_nothing_is_closed_without_a_word() -> None:
    async with serving(head_timeout_s=SHORT_S) as (served, connect):
        assert await (await connect()).answer() == (0, b"")
        await until(lambda: served.count == 0)


@pytest.mark.parametrize("beginning", [b"GET /", POST + b"X: ", POST + CHUNKED + b"1\r\n1\r\n" + b"1;"])
async def test_a_request_that_comes_drop_by_drop_has_no_more_time(beginning: bytes) -> None:
    async with serving(head_timeout_s=SHORT_S, body_timeout_s=SHORT_S) as (_served, connect):
        client = await connect()
        await client.send(beginning)

        async def drip() -> None:
            while True:
                await client.send(b"a")
                await asyncio.sleep(SHORT_S / 20)

        dripping = asyncio.create_task(drip())
        try:
            assert problem(await client.answer()) == 408
        finally:
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)


async def test_a_request_that_is_worked_on_has_all_the_time_that_it_takes() -> None:
    limits = {"head_timeout_s": SHORT_S, "body_timeout_s": SHORT_S}
    async with serving(**limits) as (served, connect):
        worked_on, half = await connect(), await connect()
        await worked_on.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await half.send(b"G")
        assert problem(await half.answer()) == 408
        served.release.set()
        assert await worked_on.answer() == (200, b"at last")


async def test_the_head_of_a_stream_does_not_wait_for_what_it_is_about() -> None:
    async with serving() as (served, connect), asyncio.timeout(PATIENCE_S):
        client = await connect()
        await client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await client.reader.readuntil(b"\r\n\r\n")
        served.release.set()
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"7\r\nat last\r\n0\r\n\r\n"


async def test_who_asks_first_whether_to_send_a_body_is_told_to() -> None:
    """RFC 9110, 10.1.1."""
    async with serving() as (_, connect), asyncio.timeout(PATIENCE_S):
        client = await connect()
        await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"{}")
        assert await client.answer() == (200, b"{}")


async def test_heads_without_bodies_are_sent_in_their_turn() -> None:
    async with serving() as (_, connect), asyncio.timeout(PATIENCE_S):
        client = await connect()
        await client.send(b"HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + POST + b"Content-Length: 2\r\n\r\n{}")
        heads = [await client.reader.readuntil(b"\r\n\r\n") for _ in range(2)]
        assert [int(head.split()[1]) for head in heads] == [200, 200]
        assert await client.answer() == (200, b"{}")


async def test_a_body_that_goes_on_without_end_behind_its_answer_is_closed() -> None:
    async with serving(body_timeout_s=SHORT_S, linger_timeout_s=SHORT_S) as (served, connect):
        client = await connect()
        await client.send(POST + b"Content-Length: 999999999999\r\n\r\n")
        assert problem(await client.answer()) == 413
        with contextlib.suppress(ConnectionError):
            while served.count:
                await client.send(b" " * 65_536)
        await until(lambda: served.count == 0)


async def test_an_answer_that_is_not_read_does_not_keep_its_connection() -> None:
    async with serving(answer_timeout_s=SHORT_S) as (served, connect):
        client = await connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: served.count == 1)
        await until(lambda: served.count == 0)


# -- large heads


@pytest.mark.parametrize(
    "head",
    [
        b"GET /echo HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000,
        b"GET /" + b"a" * 1_000_000,
        b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 200_000,
        POST + CHUNKED + b"3\r\n[1]\r\n0\r\n" + b"X: a\r\n" * 200_000,
        POST + CHUNKED + b"3\r\n[1]\r\n0\r\nX: " + b"a" * 1_000_000,
        POST + CHUNKED + b"3;" + b"a" * 1_000_000,
    ],
)
async def test_a_head_or_trailer_without_end_is_refused(head: bytes) -> None:
    async with serving() as (_served, connect):
        client = await connect()
        await client.send(head)
        assert problem(await client.answer()) == 431


async def test_the_head_that_is_large_and_the_chunks_that_are_small_are_taken() -> None:
    async with serving() as (_served, connect):
        client = await connect()
        chunks = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in b"[" + b"1," * 50_000 + b"1]")
        for _ in range(2):
            await client.send(POST + b"X: " + b"a" * 60_000 + b"\r\n" + CHUNKED + chunks + b"0\r\nX: a\r\n\r\n")
            status, body = await client.answer()
            assert (status, len(body)) == (200, 100_003)


# -- closing


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("framing", [LONG, b"Expect: 100-continue\r\n" + LONG, CHUNKED + b"2dc6c0\r\n"])
async def test_who_sends_too_much_can_send_it_and_read_why_it_is_refused(close: bytes, framing: bytes) -> None:
    """RFC 9110, 15.5.14; RFC 9112, 9.6: a reset would take the answer from whoever is still sending."""
    async with serving() as (_served, connect):
        client = await connect()
        await client.send(POST + close + framing)
        for _ in range(30):
            await client.send(b" " * 100_000)
            await asyncio.sleep(0)
        assert problem(await client.answer()) == 413
        if close:
            assert await client.ended()
        else:
            await client.send((b"\r\n0\r\n\r\n" if b"chunked" in framing else b"") + POST)
            await client.send(b"Content-Length: 3\r\n\r\n[1]")
            assert await client.answer() == (200, b"[1]")
        assert BODY_BYTES_MAX < 3_000_000


@pytest.mark.parametrize("version", [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"])
async def test_a_large_last_answer_is_sent_whole(version: bytes) -> None:
    async with serving(linger_timeout_s=SHORT_S) as (served, connect):
        client = await connect()
        await client.send(b"GET /large " + version + b"\r\n")
        await until(lambda: len(served.limits.waiting) == 0 and served.count == 1)
        await asyncio.sleep(2 * SHORT_S)
        status, body = await client.answer()
        assert (status, len(body), await client.ended()) == (200, LARGE, True)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        POST + CHUNKED + b"x\r\n",
        POST + b"Content-Length: 1, 2\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_problem_document_too(garbage: bytes) -> None:
    async with serving() as (_served, connect):
        client = await connect()
        await client.send(garbage)
        assert problem(await client.answer()) == 400
        assert await client.ended()


async def test_requests_that_come_at_once_are_answered_one_after_the_other() -> None:
    async with serving() as (_served, connect):
        client = await connect()
        requests = [POST + b"Content-Length: 3\r\n\r\n[%d]" % number for number in range(9)]
        await client.send(b"".join(requests) + POST)
        assert [await client.answer() for _ in requests] == [(200, b"[%d]" % number) for number in range(9)]
        await client.send(b"Content-Length: 3\r\n\r\n[9]")
        assert await client.answer() == (200, b"[9]")


async def test_who_has_said_all_and_shuts_that_direction_down_gets_the_answers() -> None:
    async with serving() as (served, connect):
        client = await connect()
        await client.send(POST + b"Content-Length: 3\r\n\r\n[1]" + b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        client.writer.write_eof()
        assert await client.answer() == (200, b"[1]")
        served.release.set()
        assert await client.answer() == (200, b"at last")
        assert await client.ended()
        half = await connect()
        await half.send(POST + b"Content-Length: 3\r\n\r\n[1")
        half.writer.write_eof()
        assert await half.answer() == (0, b"")
        await until(lambda: served.count == 0)


# -- upgrades

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
WEBSOCKET = (
    b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: 13\r\n"
)


@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET])
@pytest.mark.parametrize("pieces", [1, 2, 1_000])
@pytest.mark.parametrize("framing", [b"Content-Length: 3\r\n\r\n[1]", CHUNKED + b"3\r\n[1]\r\n0\r\n\r\n"])
async def test_a_request_that_asks_for_another_protocol_is_answered_in_this_one(
    upgrade: bytes, pieces: int, framing: bytes
) -> None:
    """RFC 9110, 7.8: a server may ignore it. Java's client sends h2c along with its first request."""
    async with serving() as (_served, connect):
        client = await connect()
        request = POST + upgrade + framing
        size = -(-len(request) // pieces)
        for begin in range(0, len(request), size):
            await client.send(request[begin : begin + size])
            await asyncio.sleep(0)
        assert await client.answer() == (200, b"[1]")
        for method in (b"GET", b"HEAD"):
            await client.send(method + b" /echo HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n")
            assert (await client.answer())[0] == 200
