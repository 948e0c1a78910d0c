"""What the tests of children have run in them. Arguments and results are JSON."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import orjson

from shared.children.child import Report
from shared.children.outcomes import CANCEL_SIGNAL, SoftTimeLimitError

_WAIT_S = 60.0
INITIALISED: list[int] = []


def initialise() -> None:
    INITIALISED.append(os.getpid())


def _json(function: Callable[[Any, Report], Any]) -> Callable[[bytes, Report], bytes]:
    return lambda payload, report: orjson.dumps(function(orjson.loads(payload), report))


double = _json(lambda number, _: 2 * number)
pid = _json(lambda _, __: os.getpid())


@_json
def where_it_lives(_: Any, __: Report) -> dict[str, Any]:
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    return {
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "session_of_parent": os.getsid(0) == os.getsid(os.getppid()),
        "initialised": INITIALISED,
        "stdin": Path("/proc/self/fd/0").resolve().as_posix(),
        "default": [
            signal.getsignal(n) == signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
        ],
        "blocked": int(status["SigBlk"], 16),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],  # noqa: PTH208
    }


def returns_no_bytes(_: bytes, __: Report) -> Any:
    return {"lock": threading.Lock()}


def returns_many(payload: bytes, _: Report) -> bytes:
    return bytes(int(payload))


class Unspeakable(Exception):
    """An error that can be neither pickled nor printed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no words")


def raises(payload: bytes, _: Report) -> NoReturn:
    match payload:
        case b"unspeakable":
            raise Unspeakable
        case b"long":
            raise ValueError("\ud800\0" + "x" * 10_000_000)
        case b"exit":
            sys.exit(3)
    try:
        raise KeyError("the cause")  # noqa: TRY301
    except KeyError:
        raise LookupError("of no use") from None


def dies(payload: bytes, _: Report) -> NoReturn:
    match payload:
        case b"exit":
            os._exit(7)
        case b"segfault":
            ctypes.string_at(0)
        case _:
            os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it should be dead")


def sleeps(payload: bytes, report: Report) -> bytes:
    """Tells its pid, and sleeps until it is stopped; `stubborn` does not care about the first signals."""
    told = False
    while True:
        try:
            if not told:
                told = True
                report(os.getpid(), 0, "asleep")
            time.sleep(_WAIT_S)
        except SoftTimeLimitError:
            if payload != b"stubborn":
                return b"cleaned up"
        except BaseException:
            if payload != b"stubborn":
                raise


def hears_late(_: bytes, report: Report) -> bytes:
    """Tells its pid and sleeps. The first signal to cancel it is lost, as one is that comes just before a wait."""
    heed = signal.getsignal(CANCEL_SIGNAL)
    signal.signal(CANCEL_SIGNAL, lambda *_: signal.signal(CANCEL_SIGNAL, heed))
    report(os.getpid(), 0, "asleep")
    time.sleep(_WAIT_S)
    return b"never"


def cleans_up_slowly(_: bytes, __: Report) -> bytes:
    """Sleeps until its soft limit, and then for longer than a signal takes to come again."""
    with contextlib.suppress(SoftTimeLimitError):
        time.sleep(_WAIT_S)
    time.sleep(0.3)
    return b"cleaned up"


def naps(_: bytes, report: Report) -> bytes:
    """Tells its pid and sleeps for a moment."""
    report(os.getpid(), 0, "asleep")
    time.sleep(0.2)
    return b"awake"


def leaves_a_process(payload: bytes, report: Report) -> bytes:
    """Tells the pid of what it has started; it holds this child's pipe when it is `forked`."""
    if payload == b"forked":
        grandchild = os.fork()
        if grandchild == 0:
            time.sleep(_WAIT_S)
            os._exit(0)
    else:
        grandchild = subprocess.Popen(["/bin/sleep", str(_WAIT_S)]).pid
    report(grandchild, os.getpid(), "started")
    if payload == b"return":
        return b"%d" % grandchild
    if payload == b"forked":
        os._exit(1)
    time.sleep(_WAIT_S)
    return b""


def takes_memory(payload: bytes, _: Report) -> bytes:
    held = bytearray(int(payload))
    held[::4096] = b"x" * len(held[::4096])
    return b"held"


def reports_often(payload: bytes, report: Report) -> bytes:
    for number in range(int(payload)):
        report(number + 1, int(payload), "counting")
    return b""


def writes_into_every_pipe(_: bytes, __: Report) -> bytes:
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"nonsense" * 100)
        except OSError:
            continue
    time.sleep(_WAIT_S)
    return b""
