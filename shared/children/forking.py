"""The parent's side of the fork server: has children forked and signalled, and is told how they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

import orjson
import structlog

from shared.children.fork_server import PACKET_BYTES_MAX
from shared.children.outcomes import ChildStartError

_log = structlog.get_logger(__name__)

_PROGRAM: Final = (
    "import sys, json\n"
    "path, descriptor, initialise, preload = json.loads(sys.argv[1])\n"
    "sys.path[:] = path\n"
    "from shared.children.fork_server import main\n"
    "main(descriptor, initialise, preload)\n"
)
_EXIT_S = 10.0
_KILL_S = 2.0
_LOST = -signal.SIGKILL
"""How children end whose server is gone."""


class Forking:
    """One fork server, from `start` until `close` or until it is `lost`."""

    def __init__(self, preload: Sequence[str], initialise: str | None) -> None:
        self._preload = preload
        self._initialise = initialise
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._numbers = count()
        self._births: dict[int, asyncio.Future[tuple[int, asyncio.Future[int]]]] = {}
        self._deaths: dict[int, asyncio.Future[int]] = {}
        self._signals: dict[int, asyncio.Future[None]] = {}

    @property
    def lost(self) -> bool:
        """It can fork no more."""
        return self._socket is None

    async def start(self) -> None:
        """Raises `ChildStartError` when a module cannot be imported. Takes as long as importing them does."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._socket = ours
        self._loop.add_reader(ours.fileno(), self._on_packets)
        try:
            with theirs:
                given = orjson.dumps([sys.path, theirs.fileno(), self._initialise, list(self._preload)]).decode()
                self._process = subprocess.Popen(  # noqa: ASYNC220  a vfork: milliseconds
                    [sys.executable, "-c", _PROGRAM, given],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # what the terminal or a supervisor sends to our group is for us
                )
            await self._ready
        except BaseException:
            self._let_go()
            raise

    async def fork(self, pipe: socket.socket) -> tuple[int, asyncio.Future[int]]:
        """A child that serves `pipe`: its pid, and its exit code once it has ended and its group is killed."""
        if self._socket is None:
            raise ChildStartError("the fork server is gone")
        number = next(self._numbers)
        birth: asyncio.Future[tuple[int, asyncio.Future[int]]] = self._loop.create_future()
        self._births[number] = birth
        try:
            socket.send_fds(self._socket, [orjson.dumps({"fork": number})], [pipe.fileno()])
        except OSError as error:  # also when it does not read for so long that no packet fits any more
            self._births.pop(number).cancel()
            raise ChildStartError(f"the fork server takes no orders: {error}") from error
        return await birth

    def signal(self, pid: int, number: int) -> asyncio.Future[None]:
        """Signal a child; nothing happens once it has ended. Done when the signal is not on its way any more."""
        order, sent = next(self._numbers), self._loop.create_future()
        self._signals[order] = sent
        self._order_kill(pid, number, group=False, order=order)
        if self._socket is None:  # it was, or is since
            _settle(sent, None)
            self._signals.pop(order, None)
        return sent

    def end(self, pid: int) -> None:
        """Kill a child and its process group; the server with them if that does not do it."""
        self._order_kill(pid, signal.SIGKILL, group=True)
        self._loop.call_later(_KILL_S, self._end_surely, self._deaths.get(pid))

    def _end_surely(self, death: asyncio.Future[int] | None) -> None:
        self._on_packets()  # a loop that stood still may come here before it hears what it was told meanwhile
        if death is not None and not death.done():
            _log.error("children.fork_server_stuck")
            self.abort()

    def _order_kill(self, pid: int, number: int, *, group: bool, order: int | None = None) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send(orjson.dumps({"kill": pid, "signal": number, "group": group, "number": order}))
        except OSError:
            self.abort()

    def abort(self) -> None:
        """End the server at once; its children go with it."""
        if self._process is not None:
            self._process.kill()
        self._on_lost()

    async def close(self) -> None:
        """Have the server end its children and itself; kills it when that takes too long."""
        self._let_go()
        process = self._process
        if process is None:
            return
        try:
            await asyncio.to_thread(process.wait, _EXIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait, _EXIT_S)

    # -- from the server

    def _on_packets(self) -> None:
        while self._socket is not None:
            try:
                packet = self._socket.recv(PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._on_lost()
                return
            self._on_packet(orjson.loads(packet))

    def _on_packet(self, told: dict[str, Any]) -> None:
        if "ready" in told:
            _settle(self._ready, None)
        elif "refused" in told:
            _fail(self._ready, f"steps cannot be imported: {told['refused']}")
        elif "signalled" in told:
            _settle(self._signals.pop(told["signalled"]), None)
        elif "ended" in told:
            _settle(self._deaths.pop(told["ended"]), told["exit_code"])
        elif told["pid"] is None:
            _fail(self._births.pop(told["forked"]), f"no child could be forked: {told['error']}")
        else:
            birth = self._births.pop(told["forked"])
            death = self._deaths[told["pid"]] = self._loop.create_future()
            if birth.done():  # who asked for it waits no more
                self.end(told["pid"])
            else:
                birth.set_result((told["pid"], death))

    def _on_lost(self) -> None:
        """The server ended, and the kernel kills its children; what they started is left to us."""
        if self._socket is None:
            return
        _log.error("children.fork_server_lost", children=len(self._deaths))
        for pid in self._deaths:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        self._let_go()

    def _let_go(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        _fail(self._ready, "the fork server ended")
        for birth in self._births.values():
            _fail(birth, "the fork server ended")
        for death in self._deaths.values():
            _settle(death, _LOST)
        for signalled in self._signals.values():
            _settle(signalled, None)
        self._signals.clear()
        self._births.clear()
        self._deaths.clear()


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], reason: str) -> None:
    if not future.done():
        future.set_exception(ChildStartError(reason))
        future.exception()  # marks it as seen: nobody may be waiting
