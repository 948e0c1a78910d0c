"""Starts modules of ours as processes of their own, forked from one that has imported what they need."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess

from deploy.paths import REPOSITORY
from deploy.supervisord import Start, become
from tests.preloaded import PRELOADED
from tests.spared import spare_logs

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([*PRELOADED, "tests.integration.world"])


class Forked:
    """A process; like asyncio's, without its streams."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def signal(self, number: int) -> None:
        if self._process.pid is not None:
            os.kill(self._process.pid, number)

    async def wait(self, timeout_s: float) -> int:
        """Its exit code. Raises TimeoutError."""
        await asyncio.to_thread(self._process.join, timeout_s)
        if self.returncode is None:
            raise TimeoutError(f"process {self._process.pid} did not end within {timeout_s:g} s")
        return self.returncode

    async def end(self, grace_s: float = 30.0) -> None:
        """Tell it to end, and make it end after `grace_s`."""
        self.terminate()
        try:
            await self.wait(grace_s)
        except TimeoutError:
            self.kill()
            await self.wait(grace_s)


def _become(start: Start) -> None:
    spare_logs()
    become(start, {})


async def fork(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Forked:
    """What `python -m MODULE ARGUMENTS` starts, with this process's environment unless another is given."""
    given = dict(os.environ if environment is None else environment)
    start = Start(str(REPOSITORY), given, module, arguments)
    process = _FORKS.Process(target=_become, args=(start,), daemon=True)
    await asyncio.to_thread(process.start)
    return Forked(process)
