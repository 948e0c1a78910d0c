"""One `up` or `down` of a checkout at a time: two at once would stop each other's servers."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from deploy.errors import DeployError
from deploy.paths import make_directory
from deploy.progress import Steps

_POLL_S = 0.1
_PATIENCE_S = 1.0  # who waits longer is told for whom


@contextmanager
def alone(place: Path, command: str, steps: Steps, *, wait_max_s: float) -> Iterator[None]:
    """Hold the lock file `place` in the name of `command`; the kernel frees it however this process ends.

    Raises DeployError, saying who holds it, when it is not free within `wait_max_s`.
    """
    make_directory(place.parent)
    with place.open("a+") as lock:
        _wait(lock, steps, wait_max_s)
        _write(lock, f"{os.getpid()} {command}")
        try:
            yield
        finally:
            _write(lock, "")  # nobody is to be told of a holder that is none


def _wait(lock: TextIO, steps: Steps, wait_max_s: float) -> None:
    started = time.monotonic()
    announced = False
    while not _taken(lock):
        waited_s = time.monotonic() - started
        pid, holder = _holder(lock)
        if waited_s >= wait_max_s:
            end_it = f", or end it with `kill {pid}`" if pid else ""
            raise DeployError(f"{holder} is under way in this checkout: wait for it{end_it}")
        if not announced and waited_s > _PATIENCE_S:
            steps.say(f"{holder} is under way: waiting up to {wait_max_s:.0f} s for it")
            announced = True
        time.sleep(_POLL_S)


def _taken(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: TextIO) -> tuple[str, str]:
    """Process id and name; the holder may not have written them yet."""
    lock.seek(0)
    pid, _, command = lock.read().partition(" ")
    return (pid, f"`{command}` (process {pid})") if command else ("", "another `up` or `down`")


def _write(lock: TextIO, text: str) -> None:
    lock.truncate(0)
    lock.write(text)
    lock.flush()
