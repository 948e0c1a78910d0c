"""Ports for processes that tests start themselves: no other run and no other worker is given them meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import cycle

from deploy.native.ports import BLOCK_SIZE, Ports


def held_port() -> int:
    """The next port of this process's block, which is held for as long as the process lives."""
    return next(_ports())


@cache
def _ports() -> Iterator[int]:
    block = Ports.free_block().block
    return cycle(range(block, block + BLOCK_SIZE))
