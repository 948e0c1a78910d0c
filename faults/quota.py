"""Keeps Kafka from writing, as a full disk does: no file of the broker may grow (RLIMIT_FSIZE of its process).

A write then fails with EFBIG where a full disk gives ENOSPC; the broker treats the two alike: its only log
directory is offline, and it ends. Its successors get the same quota until the time is over, as if nobody had
made room.
"""

from __future__ import annotations

import asyncio
import resource

import psutil

from experiment.side import StalledError
from faults.scene import Scene

_POLL_S = 0.1


async def disk_full(scene: Scene, seconds: float) -> None:
    """Keep Kafka from writing for so long, then let it start again."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    first = await scene.call(scene.runtime.processes.pids, "kafka")
    while loop.time() < until:
        for pid in await scene.call(scene.runtime.processes.pids, "kafka"):
            _forbid_growth(pid)
        await asyncio.sleep(_POLL_S)
    if any(psutil.pid_exists(pid) for pid in first):
        raise StalledError("Kafka goes on though its files may not grow")
    # One that lives on with the quota could never write again.
    await scene.call(scene.runtime.processes.stop, "kafka")
    await scene.call(scene.runtime.processes.start, "kafka")


def _forbid_growth(pid: int) -> None:
    try:
        psutil.Process(pid).rlimit(resource.RLIMIT_FSIZE, (1, 1))
    except psutil.NoSuchProcess:
        return
