"""HTTP servers that answer as nobody should: slowly, without end, or in another tongue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

HEAD = b"HTTP/1.1 200 OK\r\n"


@dataclass
class Misbehaving:
    """`asked` is what it was asked, `left` how many of those who asked have hung up."""

    url: str = ""
    asked: list[bytes] = field(default_factory=list)
    left: int = 0


@asynccontextmanager
async def server_that(answers: bytes, again: bytes, interval_s: float) -> AsyncIterator[Misbehaving]:
    """Says `answers` to whoever asks, and then `again` every `interval_s` for as long as that one stays."""
    made = Misbehaving()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone: asyncio.Future[bytes] | None = None
        try:
            made.asked.append(await reader.readuntil(b"\r\n\r\n"))
            gone = asyncio.ensure_future(reader.read())
            writer.write(answers)
            while not gone.done():
                writer.write(again)
                await writer.drain()
                await asyncio.wait([gone], timeout=interval_s)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            if gone is not None:
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
            made.left += 1
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made
