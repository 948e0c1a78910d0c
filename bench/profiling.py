"""Has py-spy look at a contender while it drains: where its time goes, as a flame graph."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_SAMPLES_PER_S = 200
_LONGEST_S = 600
_WRITING_TIMEOUT_S = 60.0


@asynccontextmanager
async def profiled(pid: int, graph: Path | None) -> AsyncIterator[None]:
    """Sample the process while inside, and write `graph` (SVG) once it has ended; nothing without one."""
    if graph is None:
        yield
        return
    graph.parent.mkdir(parents=True, exist_ok=True)
    arguments = ("record", "--pid", pid, "--rate", _SAMPLES_PER_S, "--duration", _LONGEST_S, "--output", graph)
    profiler = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("py-spy")), *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield
        with suppress(TimeoutError):
            await asyncio.wait_for(
                profiler.wait(), _WRITING_TIMEOUT_S
            )  # it ends with the process that it looks at
    finally:
        if profiler.returncode is None:
            profiler.kill()
            await profiler.wait()
