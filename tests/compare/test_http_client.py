"""The load generator's client, against servers that answer as a test wants: over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from compare.http_client import HttpClient, NoAnswerError

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b'HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{"a": 1}'


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """The base URL of a server that hands every connection to `serve`."""

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(whole, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_requests_share_a_connection_and_carry_what_they_should() -> None:
    connections = 0
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(7 if b"content-length: 7" in heads[-1] else 0)
            writer.write(OK)

    async with serving(serve) as url, HttpClient(5) as client:
        first = await client.request("POST", url, "/orders", {"b": 2}, {"idempotency-key": "k"})
        second = await client.request("POST", url, "/orders/1/pay")
    assert (first.status, first.json(), second.status) == (200, {"a": 1}, 200)
    assert connections == 1
    assert heads[0].startswith(b"POST /orders HTTP/1.1\r\n")
    assert b"idempotency-key: k\r\n" in heads[0]
    assert b"content-length: 0\r\n" in heads[1]


async def test_a_connection_that_the_server_closed_while_idle_is_not_used_again() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with serving(serve) as url, HttpClient(5) as client:
        for _ in range(3):
            assert (await client.request("GET", url, "/")).status == 200
            await asyncio.sleep(0.05)


async def test_an_error_answer_is_an_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    async with serving(serve) as url, HttpClient(5) as client:
        assert (await client.request("GET", url, "/")).status == 409


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "IncompleteReadError"),
        (OK[:-3], "IncompleteReadError"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "ValueError"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "ValueError"),
    ],
)
async def test_an_answer_that_breaks_off_or_is_no_answer_leaves_the_request_open(
    answer: bytes, reason: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with serving(serve) as url, HttpClient(5) as client:
        with pytest.raises(NoAnswerError, match=reason):
            await client.request("GET", url, "/")


async def test_silence_ends_after_the_timeout() -> None:
    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(serve) as url, HttpClient(0.1) as client:
        with pytest.raises(NoAnswerError, match="Timeout"):
            await client.request("GET", url, "/")


async def test_nobody_there_is_no_answer() -> None:
    async def serve(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        return

    async with serving(serve) as url:
        pass
    async with HttpClient(5) as client:
        with pytest.raises(NoAnswerError, match="ConnectionRefusedError"):
            await client.request("GET", url, "/")
