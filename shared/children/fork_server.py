"""The fork server: a process that has imported what steps need and forks the children, so that a start is cheap.

It is ours and not `multiprocessing`'s, because that one gives every child the life line of its server: when the
parent is killed, server and children stay. This one ends with its parent, reaps the children itself and kills what
they leave behind: the process group, and orphans that left it (it is their subreaper, prctl(2)). It alone signals
children, before it reaps them, so that no signal reaches a stranger under a used number.

It has one thread and one connection, on which each packet is a JSON object: from the parent `fork` (with the
child's pipe) and `kill`, from here `ready` or `refused`, `forked`, `signalled` and `ended`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final, NoReturn

import orjson

from shared.children.child import Child

PACKET_BYTES_MAX: Final = 4_096
_GOODBYES_S = 5.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NOT_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Who means the whole job with these means the parent, which then ends the children in good order."""


def main(descriptor: int, initialise: str | None, preload: Sequence[str]) -> None:
    """Serve the parent at the other end of `descriptor` until it closes it. `initialise` names a function
    `module:name` that each child calls first."""
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    parent = socket.socket(fileno=descriptor)
    try:
        for module in preload:
            importlib.import_module(module)
        function = None if initialise is None else resolve_name(initialise)
    except Exception as error:  # noqa: BLE001  importing runs anybody's code
        with contextlib.suppress(OSError):
            parent.send(orjson.dumps({"refused": f"{type(error).__name__}: {error}"[:1_000]}))
        return
    gc.collect()
    gc.freeze()  # a child's garbage collector leaves these pages alone, and shared
    ForkServer(parent, function).serve()


class ForkServer:
    """The server's loop."""

    def __init__(self, parent: socket.socket, initialise: Callable[[], None] | None) -> None:
        self._parent = parent
        self._initialise = initialise
        self._children: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._wakeups, wakeup = socket.socketpair()
        self._wakeups.setblocking(False)
        wakeup.setblocking(False)
        self._wakeup = wakeup
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Fork, kill and reap as told, until the parent is gone; then end all children."""
        self._selector.register(self._parent, selectors.EVENT_READ)
        self._selector.register(self._wakeups, selectors.EVENT_READ)
        with contextlib.suppress(OSError):
            self._tell({"ready": os.getpid()})
            while self._step():
                pass
        self._end_all()

    def _step(self) -> bool:
        for key, _ in self._selector.select():
            if key.fileobj is self._wakeups:
                with contextlib.suppress(BlockingIOError):
                    self._wakeups.recv(4_096)
            elif not self._take():
                return False
        for pid, exit_code in self._reap():
            self._tell({"ended": pid, "exit_code": exit_code})
        return True

    def _take(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(self._parent, PACKET_BYTES_MAX, 1)
        if not packet:
            return False
        order = orjson.loads(packet)
        if "fork" in order:
            self._fork(order["fork"], descriptors[0])
        else:
            if order["kill"] in self._children:
                _kill(order["kill"], order["signal"], group=order["group"])
            if order["number"] is not None:
                self._tell({"signalled": order["number"]})
        return True

    def _tell(self, packet: Mapping[str, Any]) -> None:
        self._parent.send(orjson.dumps(packet))

    # -- birth

    def _fork(self, number: int, descriptor: int) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(descriptor)
            self._tell({"forked": number, "pid": None, "error": str(error)})
            return
        if pid == 0:
            self._be_child(descriptor, server)
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # here as well as there: whoever is first
        self._children.add(pid)
        self._tell({"forked": number, "pid": pid})

    def _be_child(self, descriptor: int, server: int) -> NoReturn:
        exit_code = 1
        try:
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != server:  # it ended before it could take us along
                os._exit(1)
            signal.set_wakeup_fd(-1)
            for number in (*_NOT_OURS, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            for mine in (self._parent, self._wakeups, self._wakeup, self._selector):
                mine.close()
            if self._initialise is not None:
                self._initialise()
            Child(socket.socket(fileno=descriptor)).serve()
            exit_code = 0
        except BaseException:  # noqa: BLE001  whatever it is, nobody above may go on as the server
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(exit_code)

    # -- death

    def _reap(self) -> list[tuple[int, int]]:
        """Those that have ended, by pid and exit code, negative for a signal; their groups are killed."""
        ended = []
        while (zombie := _zombie()) is not None:
            if zombie in self._children:
                _kill(zombie, signal.SIGKILL, group=True)  # while the zombie keeps the number
            _, status = os.waitpid(zombie, 0)
            if zombie in self._children:
                self._children.discard(zombie)
                ended.append((zombie, os.waitstatus_to_exitcode(status)))
        return ended

    def _end_all(self) -> None:
        """Kill the children and the orphans: which child one is from cannot be told, so they live until now."""
        deadline = time.monotonic() + _GOODBYES_S
        for pid in self._children:
            _kill(pid, signal.SIGKILL, group=True)
        self._reap()
        while (left := _own_children()) and time.monotonic() < deadline:
            for pid in left:
                _kill(pid, signal.SIGKILL, group=False)
                _kill(pid, signal.SIGKILL, group=True)
            self._selector.select(0.02)
            self._reap()


def _kill(pid: int, number: int, *, group: bool) -> None:
    with contextlib.suppress(OSError):
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _zombie() -> int | None:
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if ended is None else ended.si_pid


def _own_children() -> set[int]:
    pid = os.getpid()
    try:
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except OSError:  # a kernel without that file: orphans that left their group are nobody's
        return set()


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")
