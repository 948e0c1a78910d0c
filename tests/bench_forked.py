"""`python -m tests.bench_forked` is `python -m bench` whose contenders are forks: each start costs a tenth."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NoReturn

from bench import running
from bench.command_line import main
from deploy.paths import REPOSITORY
from deploy.supervisord import Start, become
from experiment.signals import raise_on_first_signal
from tests.preloaded import PRELOADED

_CONTENDERS = "bench.contenders."
_IMPORTED = (
    "aio_pika",
    "aiokafka",
    "bench.command_line",
    "uvloop",
)
_FORKS = multiprocessing.get_context("forkserver")


class Forked:
    """`bench.running.Process`."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self.pid = process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    async def wait(self) -> int:
        await asyncio.to_thread(self._process.join)
        return self._process.exitcode or 0


_start_process = running.start_process


async def start_process(words: Sequence[str], environment: Mapping[str, str], log: Path) -> running.Process:
    """As `bench.running.start_process`, for a module (`-m`); Celery, which is none of ours, starts as ever."""
    if words[1] == "celery":
        return await _start_process(words, environment, log)
    start = Start(str(REPOSITORY), environment, words[1], tuple(words[2:]))
    process = _FORKS.Process(target=_begin, args=(start, str(log)), daemon=True)
    await asyncio.to_thread(process.start)
    return Forked(process)


def _begin(start: Start, log: str) -> NoReturn:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for module in [name for name in sys.modules if name.startswith(_CONTENDERS)]:
        del sys.modules[module]  # whoever starts them has imported them, without their environment
    become(start, {})


if __name__ == "__main__":
    _FORKS.set_forkserver_preload([*PRELOADED, *_IMPORTED])
    running.start_process = start_process
    raise_on_first_signal()
    sys.exit(main(sys.argv[1:]))
