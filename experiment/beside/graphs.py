"""Graphs of jobs by their numbers: what each is, and what comes of it. Pure."""

from __future__ import annotations

SUBSCRIBER = "jobs"
"""Who runs their steps."""


def is_chain(number: int) -> bool:
    """Every other graph is a chain, those between are groups."""
    return number % 2 == 0


def expected(number: int, steps: int) -> int:
    """The result of that graph, without running it."""
    if is_chain(number):
        return number + steps - 1
    return sum(number + n for n in range(steps))


def steps_of(number: int, steps: int) -> int:
    """How many steps that graph has."""
    return steps if is_chain(number) else steps + 1
