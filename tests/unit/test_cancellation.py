"""A task that loses a cancellation is ended all the same."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from unittest.mock import AsyncMock

from shared import cancellation
from shared.broker.tending import Tending


class Loop:
    """Lives on after the first cancellation, as a loop round `asyncio.wait_for` may on Python 3.11."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.rounds = 0

    async def run(self) -> None:
        with suppress(asyncio.CancelledError):
            self.waiting.set()
            await asyncio.Event().wait()
        while True:
            self.rounds += 1
            await asyncio.sleep(0.001)


async def started() -> tuple[Loop, asyncio.Task[None]]:
    loop = Loop()
    task = asyncio.create_task(loop.run())
    await loop.waiting.wait()
    return loop, task


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    loop, task = await started()
    async with asyncio.timeout(10):
        await cancellation.end(task)
    assert task.cancelled()
    assert loop.rounds > 0


async def test_a_task_that_has_ended_is_left_alone() -> None:
    async def fail() -> None:
        raise ValueError("its own")

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    await cancellation.end(task)
    assert isinstance(task.exception(), ValueError)


async def test_closing_an_adapter_does_not_wait_for_ever_for_what_keeps_its_places_declared() -> None:
    tending = Tending(tend=AsyncMock())
    _, tending._task = await started()
    done, _ = await asyncio.wait([asyncio.create_task(tending.stop())], timeout=10)
    assert done, "closing waits for ever"
