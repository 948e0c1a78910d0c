"""Runs items that share a key one after the other, and different keys side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

ItemT = TypeVar("ItemT")


async def run_in_key_order(
    items: Iterable[ItemT],
    key_of: Callable[[ItemT], str],
    run: Callable[[list[ItemT]], Awaitable[None]],
    concurrency: int,
) -> None:
    """Call `run` with the items of each key, in order; at most `concurrency` calls run at once."""
    chains: dict[str, list[ItemT]] = {}
    for item in items:
        chains.setdefault(key_of(item), []).append(item)
    slots = asyncio.Semaphore(concurrency)

    async def in_turn(chain: list[ItemT]) -> None:
        async with slots:
            await run(chain)

    async with asyncio.TaskGroup() as tasks:
        for chain in chains.values():
            tasks.create_task(in_turn(chain))
