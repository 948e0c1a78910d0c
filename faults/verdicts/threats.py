"""The server of a threat list, and the receiver of alerts, both of which a fault can take away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256

import orjson

from experiment.side import StalledError
from faults.scene import PATIENCE_S

_HOST = "127.0.0.1"


class ListServer:
    """Says one list, with a version of its own, or half of it and no more; always on the same port."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._port = 0
        self._content = b""
        self._is_held = False
        self._asked = asyncio.Event()
        self._answers: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it is, or was."""
        return f"http://{_HOST}:{self._port}/threats.txt"

    async def open(self) -> None:
        """Be there, again on the same port."""
        self._server = await asyncio.start_server(self._accept, _HOST, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Be gone: who connects is refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._answers:
            task.cancel()
        await asyncio.gather(*self._answers, return_exceptions=True)

    def offer(self, *entries: str, held: bool = False) -> None:
        """Say this list from now on; `held`: only half of it, and the rest never."""
        self._content = "".join(f"{entry}\n" for entry in entries).encode()
        self._is_held = held
        self._asked.clear()

    async def until_asked(self) -> None:
        """Wait until somebody has what it sends of the list. Raises `StalledError`."""
        try:
            await asyncio.wait_for(self._asked.wait(), PATIENCE_S)
        except TimeoutError:
            raise StalledError("nobody asks for the threat list") from None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request = (await reader.readuntil(b"\r\n\r\n")).lower()
            etag = b'"%s"' % sha256(self._content).hexdigest()[:16].encode()
            if b"if-none-match: " + etag in request:
                writer.write(b"HTTP/1.1 304 Not Modified\r\netag: %s\r\nconnection: close\r\n\r\n" % etag)
            else:
                head = b"HTTP/1.1 200 OK\r\netag: %s\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
                writer.write(head % (etag, len(self._content)))
                writer.write(self._content[: len(self._content) // 2] if self._is_held else self._content)
            await writer.drain()
            self._asked.set()
            if self._is_held:
                await asyncio.sleep(PATIENCE_S)
        writer.close()


@asynccontextmanager
async def alerts_taken() -> AsyncIterator[tuple[str, list[str]]]:
    """A URL that takes alerts, and the names of those that it was sent."""
    taken: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            taken.append(orjson.loads(await reader.readexactly(length))["alert"])
            writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, _HOST)
    try:
        yield f"http://{_HOST}:{server.sockets[0].getsockname()[1]}/alerts", taken
    finally:
        server.close()
