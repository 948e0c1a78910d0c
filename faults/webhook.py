"""Points the dead-letter service's alerts at a receiver that answers a byte at a time, for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from experiment.side import StalledError
from faults import poison
from faults.scene import Scene

_BYTE_EVERY_S = 2.0
_ARRIVAL_S = 6.0
_NO_INTERVAL = {"TANDEM_ALERT_INTERVAL_S": "0.001"}
"""An earlier fault may have been alerted of for the same cause, which is then silent for an hour."""


async def never_ends(scene: Scene) -> None:
    """What the consumer cannot take is alerted of to the slow receiver, kept, and given back all the same.

    Raises `StalledError` when no alert was sent.
    """
    async with _receiver() as (url, taken):
        scene.begin()
        await scene.stand_in(poison.KEEPER, {"TANDEM_ALERT_WEBHOOK_URL": url, **_NO_INTERVAL})
        await poison.comes_and_is_redriven(scene, _ARRIVAL_S)
        if not taken:
            raise StalledError("the dead-letter service has sent no alert")
        await scene.restored(poison.KEEPER)


@asynccontextmanager
async def _receiver() -> AsyncIterator[tuple[str, list[bytes]]]:
    taken: list[bytes] = []
    answering: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.create_task(answer(reader, writer)))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            taken.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(_BYTE_EVERY_S)

    server = await asyncio.start_server(accept, "127.0.0.1")
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/alerts", taken
    finally:
        server.close()
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
