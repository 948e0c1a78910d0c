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
    *,
    together_min: int = 1,
) -> None:
    """Call `run` with all items of a key, in order; at most `concurrency` calls run at once.

    A call gets further keys' items, too, until it has `together_min`.
    """
    chains: dict[str, list[ItemT]] = {}
    for item in items:
        chains.setdefault(key_of(item), []).append(item)
    waiting = iter(_joined(chains.values(), together_min))

    async def run_in_turn() -> None:
        for chain in waiting:  # which all of them share
            await run(chain)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(concurrency, len(chains))):
            tasks.create_task(run_in_turn())


def _joined(chains: Iterable[list[ItemT]], length_min: int) -> Iterable[list[ItemT]]:
    """The chains one behind the other, until each has its length; the last may be shorter."""
    joined: list[ItemT] = []
    for chain in chains:
        joined += chain
        if len(joined) >= length_min:
            yield joined
            joined = []
    if joined:
        yield joined
