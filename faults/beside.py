"""What runs beside the orders while the system is broken, and is checked too: jobs, and transfers of money."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, Self
from uuid import UUID

import asyncpg

from experiment.side import Side
from faults.fault import Fault

_PATIENCE = 2
"""A graph of jobs has five levels and a transfer waits for another's, where an event has one step: they may take
longer by this."""
_QUERY_TIMEOUT_S = 60.0
_UNDER_WAY_MAX = 100
"""Far more than are asked for at once: nothing is asked for while so many wait for their end."""


@dataclass(slots=True)
class Findings:
    """What a check found: figures, and lists of what is damaged, as text. Nothing in any list is sound."""

    acknowledged: int = 0

    @property
    def sound(self) -> bool:
        """Whether no list has anything in it."""
        return not any(self.damage().values())

    def damage(self) -> dict[str, list[str]]:
        """Every class of damage by its name."""
        lists = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: found for name, found in lists.items() if isinstance(found, list)}

    def counts(self) -> dict[str, int]:
        """Every figure by its name, and of every class of damage how much there is."""
        figures = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: len(found) if isinstance(found, list) else found for name, found in figures.items()}

    def since(self, before: Self) -> Self:
        """What this one, over everything, found and an earlier one had not."""
        fresh = type(self)()
        for one in fields(self):
            now, known = getattr(self, one.name), getattr(before, one.name)
            news = [found for found in now if found not in known] if isinstance(now, list) else now - known
            setattr(fresh, one.name, news)
        return fresh


@asynccontextmanager
async def connected(side: Side, service: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of its own to a service's database, past the proxy: the last one may have been cut."""
    dsn = side.runtime.dsn(side.runtime.sets[side.broker].database(service))
    connection = await asyncpg.connect(dsn, timeout=_QUERY_TIMEOUT_S, command_timeout=_QUERY_TIMEOUT_S)
    try:
        yield connection
    finally:
        await connection.close()


def plain_uuid(value: Any) -> UUID:
    """The standard one of asyncpg's own, which is not equal to it in every way."""
    return UUID(bytes=value.bytes)


def patience_s(side: Side) -> float:
    """How long what runs beside may take to end."""
    return _PATIENCE * side.workload.settle_timeout_s


async def ask_steadily(
    ask: Callable[[], Coroutine[Any, Any, object]], per_s: float, enough: asyncio.Event
) -> None:
    """Ask at a fixed rate until `enough`, whether or not it is answered; returns when all has come to an end."""
    asked: set[asyncio.Task[object]] = set()
    try:
        while not enough.is_set():
            if len(asked) < _UNDER_WAY_MAX:
                task = asyncio.create_task(ask())
                asked.add(task)
                task.add_done_callback(asked.discard)
            await asyncio.sleep(1 / per_s)
        await asyncio.gather(*asked)
    finally:
        for task in asked:
            task.cancel()


def fewer(there: int, due: int, known: int) -> list[str]:
    """What says how many more than the `known` ones, of those that are due, are not there."""
    return [f"{number} of {due}" for number in range(known + 1, due - there + 1)]


class Company(Protocol):
    """One side's load of another kind, with its own check."""

    async def prepare(self) -> None:
        """Make what the load needs, once, when the services run and the users are registered."""

    async def load(self, enough: asyncio.Event) -> None:
        """Ask for one after the other at a fixed rate until `enough`, whether or not they are answered."""

    async def verify(self) -> Findings:
        """Wait until all that was asked for has ended, and check it; what the check before had not found."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A kind of load beside the orders."""

    name: str
    title: str
    make: Callable[[Side], Company]
    modules: Mapping[str, Sequence[str]]
    """The processes of the table that it needs, and the arguments of what runs in each; none: what always does."""
    figures: tuple[str, ...]
    """What its table shows first."""
    faults: tuple[Fault, ...]
    """What it alone has to bear."""
    columns: Mapping[str, tuple[str, ...]]
    """Which kinds of damage are added up in a column."""
    definition: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """Settings of all the side's services."""


Companies = Mapping[Kind, Company]


def processes_of(kinds: Iterable[Kind]) -> frozenset[str]:
    """The processes of the table that these need."""
    return frozenset(name for kind in kinds for name in kind.modules)
