"""What all that runs beside the orders has in common: its process, its load, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from experiment.beside.effects import CREATE_EFFECTS
from experiment.clock import Clock
from experiment.figures import Latencies
from experiment.ledger import Entry
from experiment.side import Side

DATABASE = "jobs"
"""Whose database it has: that of a service that takes no part otherwise, with all tables that are needed."""
_SUFFIX = "beside"


@dataclass(frozen=True, slots=True)
class Told:
    """What came of what ran beside the orders in a phase.

    `latencies` are from when each was due until its end; `counts` what is to be told besides, by name; `wrong`
    names each that was lost, done twice or came to another end than it should: nothing in it is sound.
    """

    latencies: Latencies = field(default_factory=Latencies)
    counts: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Company(Protocol):
    """What is there beside the orders in one phase."""

    async def load(self, duration_s: float) -> None:
        """Ask for one after the other on time, for so long; returns when each is answered or given up."""

    async def told(self, entries: Sequence[Entry]) -> Told:
        """Wait until everything has come to its end, and say what came of it; `entries` are the orders' of the
        phase."""


@asynccontextmanager
async def process(side: Side, roles: str, *arguments: str) -> AsyncIterator[str]:
    """Run `python -m experiment.beside.process …` on the side, with these roles; its URL. Its table of effects is
    made, and empty. Raises `DeployError` when it does not become ready."""
    await side.databases.execute(DATABASE, CREATE_EFFECTS)
    await side.databases.execute(DATABASE, "truncate beside_effect")
    processes = side.runtime.processes
    name = await asyncio.to_thread(
        processes.start_extra,
        side.process(DATABASE),
        _SUFFIX,
        {"TANDEM_ROLES": roles},
        in_place=True,
        module=["experiment.beside.process", *arguments],
    )
    try:
        yield side.runtime.addresses.service_urls(side.broker)[DATABASE]
    finally:
        await asyncio.to_thread(processes.stop_extra, name)


async def ask_on_time(
    ask: Callable[[int, float], Coroutine[None, None, None]], per_s: float, duration_s: float, clock: Clock
) -> None:
    """Call `ask` with a number and the time at which it is due, evenly in time, whatever became of the others;
    returns when all have ended."""
    began_s = clock.now_s()
    async with asyncio.TaskGroup() as asked:
        for number in range(round(per_s * duration_s)):
            due_s = began_s + number / per_s
            await asyncio.sleep(max(0.0, due_s - clock.now_s()))
            asked.create_task(ask(number, due_s))
