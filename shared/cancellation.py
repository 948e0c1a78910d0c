"""Ends a task that may lose a cancellation.

Python 3.11's `asyncio.wait_for`, with which the clients of Redis and RabbitMQ wait for each answer, returns the
answer instead of raising when the cancellation comes at the same moment. A loop then lives on, and whoever
cancelled it once would wait for it for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

_CANCEL_AGAIN_S = 0.1


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel `task` until it has ended. Whatever it raised stays in the task."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)
