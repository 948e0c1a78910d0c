"""Leased handlers for tests, and a worker process that runs them: `python -m tests.integration.leased_steps`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any

from sqlalchemy import text

from shared.jobs.context import Chunk, JobContext
from shared.jobs.events import StepReady
from shared.jobs.jobs import Jobs
from shared.jobs.leased import Worker
from shared.jobs.retries import Retry
from shared.jobs.signatures import Job, job
from shared.process.parts import build_parts
from shared.settings import Settings
from tests.integration.world import INSERT_EFFECT

LONG_S = 60.0
SOON = Retry(2, initial_s=0.01, max_s=0.05)


class Ready(StepReady):
    channel = "leased"
    event_type = "leased.step_ready"


def note(ctx: JobContext, key: str) -> None:
    ctx.tell(INSERT_EFFECT, {"event_id": str(ctx.step_id), "key": key, "number": ctx.attempt})


@job(leased=True, retries=SOON)
async def quick(key: str, ctx: JobContext, failures: int = 0) -> str:
    """Its effect is told before it fails."""
    note(ctx, key)
    if ctx.attempt <= failures:
        raise ValueError(key)
    return f"{key}{ctx.attempt}"


@job(leased=True, queue="slow", retries=SOON)
async def waits(ctx: JobContext) -> str:
    """Never ends in its first attempt; says its process."""
    ctx.report(os.getpid(), 1, "waiting")
    note(ctx, "waits")
    if ctx.attempt == 1:
        await asyncio.sleep(LONG_S)
    return "waited"


@job(leased=True, queue="slow")
async def deaf(ctx: JobContext) -> str:
    """Ends when it is cancelled, with a result, as if it had not heard."""
    note(ctx, "deaf")
    ctx.report(0, 1)
    try:
        await asyncio.sleep(LONG_S)
    except asyncio.CancelledError:
        return "done all the same"
    return "slept"


GATE = asyncio.Event()


@job(leased=True, queue="slow", retries=SOON)
async def gated(ctx: JobContext) -> str:
    """Waits at the gate in its first attempt."""
    note(ctx, "gated")
    if ctx.attempt == 1:
        await GATE.wait()
    return f"attempt {ctx.attempt}"


@job(process=True, queue="cpu", retries=SOON)
def compute(number: int, ctx: JobContext, how: str = "") -> dict[str, int]:
    """Tells its effect from its own process, which it may end."""
    note(ctx, "compute")
    ctx.report(os.getpid(), 1, "computing")
    if how == "iterate":
        ctx.iterate(lambda _cursor: asyncio.sleep(0, None))
    if how == "raise" or (how == "raise once" and ctx.attempt == 1):
        raise LookupError("not found")
    if how == "die" or (how == "die once" and ctx.attempt == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sleep" and ctx.attempt == 1:
        time.sleep(LONG_S)
    return {"square": number * number, "pid": os.getpid()}


@job(leased=True, queue="slow", retries=Retry(1, initial_s=0.01, max_s=0.05))
async def ends_its_worker(ctx: JobContext) -> None:
    note(ctx, "ends its worker")
    if "pytest" in sys.modules:
        raise AssertionError("it ran once too often")
    os.kill(os.getpid(), signal.SIGKILL)


@job(leased=True, queue="slow", retries=SOON)
async def counts(until: int, ctx: JobContext, pause_at: int = -1) -> int:
    """An effect and a checkpoint for each number; waits at one, in its first attempt."""

    async def read(cursor: Any) -> Chunk | None:
        number = cursor or 0
        return Chunk(number, number + 1) if number < until else None

    seen = 0
    async for number in ctx.iterate(read):
        note(ctx, f"number {number}")
        if number == pause_at and ctx.attempt == 1:
            ctx.report(number, until)
            await asyncio.sleep(LONG_S)
        seen += 1
    return seen


@job(leased=True, retries=Retry(0))
async def looks(ctx: JobContext, writes: bool = False) -> int:
    """How many effects there are; with `writes`, it also tries to make one where it may only read."""
    async with ctx.reading() as connection:
        if writes:
            await connection.execute(INSERT_EFFECT, {"event_id": "-", "key": "written", "number": 0})
        return int((await connection.execute(text("select count(*) from effect"))).scalar_one())


HANDLERS: tuple[Job[..., Any], ...] = (quick, waits, deaf, gated, compute, ends_its_worker, counts, looks)
JOBS = Jobs(Ready, *HANDLERS)
IN_THE_LOOP = {name: handler for name, handler in JOBS.handlers.items() if handler is not compute}
"""A worker without `compute` has no child processes."""


async def main() -> None:
    """A worker alone, with the settings of the environment; it drains when it is terminated."""
    parts = build_parts("leased", Settings.from_environment())
    parts.units.submitter = JOBS
    working = asyncio.create_task(Worker(parts, IN_THE_LOOP, JOBS.batch).run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    await asyncio.wait([working])
    await parts.close()
    if not working.cancelled():
        working.result()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
