"""How a transaction begins: with its events in the inbox, perhaps while they are being claimed, or without."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType

from shared.consuming import inbox
from shared.envelope import Envelope
from shared.publishing import UnitOfWork, UnitsOfWork

_OTHERS_ROW_S = 0.5
"""What is to be rolled back waits so long for another process's row. Then its statement is cancelled, which costs
the connection."""

Recorded = tuple[UnitOfWork, Collection[tuple[str, str]]]
"""The unit of work, and the `(source, id)` of the events that the inbox had already."""


class Begun:
    """A unit of work with its events in the inbox: committed on leaving, rolled back on any exception.

    It begins when it is entered, or before by `begin`, and is then to be entered or rolled back. Behind either
    it may be entered again. Raises what a unit of work raises.

    Where it `asks_last`, its one event is taken for new, and its row goes into the first statement of the end,
    which fails if that is not so; where it is the only one, no transaction need begin (`UnitOfWork.flush`).
    """

    def __init__(
        self, units: UnitsOfWork, subscriber: str, events: Sequence[Envelope], *, asks_last: bool = False
    ) -> None:
        self._units = units
        self._subscriber = subscriber
        self._events = events
        self.asks_last = asks_last
        self._beside: asyncio.Task[Recorded] | None = None
        self._unit: AbstractAsyncContextManager[UnitOfWork] | None = None

    @property
    def is_beside(self) -> bool:
        """Whether it has begun, or is about to, and was neither entered nor rolled back."""
        return self._beside is not None

    def begin(self) -> None:
        """Begin beside whatever comes next."""
        self._beside = asyncio.create_task(self._begin(), name="transaction-begins")

    async def __aenter__(self) -> Recorded:
        beside, self._beside = self._beside, None
        return await self._entered(beside or self._begin())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        unit, self._unit = self._unit, None
        if unit is not None:
            await unit.__aexit__(kind, error, trace)

    async def roll_back(self) -> None:
        """Undo it if it has begun and was not entered; also while this task is being cancelled."""
        beside, self._beside = self._beside, None
        if beside is not None:
            await asyncio.shield(self._undo(beside))

    async def _begin(self) -> Recorded:
        unit = self._units.begin()
        uow = await unit.__aenter__()
        self._unit = unit
        if self.asks_last:
            [event] = self._events
            inbox.fence(uow, self._subscriber, event)
            return uow, ()
        known = await inbox.record(uow.connection, self._subscriber, self._events)
        uow.used_transaction = False  # by anybody else
        return uow, known

    async def _entered(self, begun: Awaitable[Recorded]) -> Recorded:
        try:
            return await begun
        except BaseException as error:  # a cancellation may come at the moment when it has begun
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

    async def _undo(self, beside: asyncio.Task[Recorded]) -> None:
        with suppress(Exception):  # whoever enters it begins anew, and meets it again
            async with asyncio.timeout(_OTHERS_ROW_S):
                await self._entered(beside)
            unwanted = asyncio.CancelledError()
            await self.__aexit__(type(unwanted), unwanted, None)


class _Undone(Exception):
    """Rolls back what was only asked."""


async def is_recorded(units: UnitsOfWork, subscriber: str, event: Envelope) -> bool:
    """Whether the inbox has the event. One that another process is recording is waited for."""
    known: Collection[tuple[str, str]] = ()
    with suppress(_Undone):
        async with units.begin() as uow:
            known = await inbox.record(uow.connection, subscriber, [event])
            raise _Undone
    return bool(known)
