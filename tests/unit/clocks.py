"""A clock for what takes one."""

from __future__ import annotations


class Clock:
    """It stands until it is moved: says what it is told, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now
