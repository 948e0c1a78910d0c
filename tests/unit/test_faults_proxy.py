"""The proxy that cuts the network: nothing passes a cut, and nothing is lost by one."""

from __future__ import annotations

import asyncio
import socket

import pytest

from faults.proxy import Proxies


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_what_is_sent_through_a_cut_arrives_when_it_is_mended() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = free_port()
    with Proxies({"server": (port, server.sockets[0].getsockname()[1])}) as proxies:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"before\n")
        assert await asyncio.wait_for(reader.readline(), 10) == b"before\n"

        proxies.cut("server")
        writer.write(b"through the cut\n")
        fresh_reader, fresh_writer = await asyncio.open_connection("127.0.0.1", port)
        fresh_writer.write(b"and a new one\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readline(), 0.5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fresh_reader.readline(), 0.5)

        proxies.mend("server")
        assert await asyncio.wait_for(reader.readline(), 10) == b"through the cut\n"
        assert await asyncio.wait_for(fresh_reader.readline(), 10) == b"and a new one\n"
        writer.close()
        fresh_writer.close()
    server.close()


async def test_a_server_that_is_down_closes_the_connection() -> None:
    port = free_port()
    with Proxies({"server": (port, free_port())}):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
