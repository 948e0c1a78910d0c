"""Cuts the network between the services and a server, and mends it again: TCP proxies stand in between.

A cut is silent, as a broken cable or a dropped packet is: nothing passes, nobody is told, new connections are
accepted and get no answer. What was under way goes on when the cut is mended, unless one side has given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65_536
_START_TIMEOUT_S = 10.0


class Proxies:
    """A proxy for each server, on 127.0.0.1; `ports` gives the ports where it listens and to which it connects.

    They run in a thread with an event loop of its own, so that they pass on what comes whatever the caller does.
    """

    def __init__(self, ports: Mapping[str, tuple[int, int]]) -> None:
        self._ports = dict(ports)
        self._open = {name: asyncio.Event() for name in ports}
        self._thread = threading.Thread(target=self._run, name="proxies", daemon=True)
        self._listening = threading.Event()
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()  # closed by the thread
        self._thread.start()
        if not self._listening.wait(_START_TIMEOUT_S):
            raise OSError("the proxies do not listen")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_TIMEOUT_S)

    def cut(self, name: str) -> None:
        """From now on nothing passes."""
        self._loop.call_soon_threadsafe(self._open[name].clear)

    def mend(self, name: str) -> None:
        """What waits passes, and all that follows."""
        self._loop.call_soon_threadsafe(self._open[name].set)

    # -- in the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    async def _serve(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for name, (port, target) in self._ports.items():
                self._open[name].set()

                async def accept(
                    reader: asyncio.StreamReader,
                    writer: asyncio.StreamWriter,
                    name: str = name,
                    target: int = target,
                ) -> None:
                    await self._connect(name, target, reader, writer)

                server = await asyncio.start_server(accept, "127.0.0.1", port)
                stack.callback(server.close)
            self._listening.set()
            await self._stop.wait()

    async def _connect(
        self, name: str, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        is_open = self._open[name]
        await is_open.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:  # the server is down: so is the connection
            writer.close()
            return
        there = asyncio.create_task(_pass_on(reader, far_writer, is_open))
        back = asyncio.create_task(_pass_on(far_reader, writer, is_open))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            far_writer.close()
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_open: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            await is_open.wait()
            writer.write(data)
            await writer.drain()
        await is_open.wait()  # not even the end of a connection is heard of through a cut
