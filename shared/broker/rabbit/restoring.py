"""Declares again at once what the server says is gone: until then its events go to other subscribers alone.

That a queue is deleted is noticed by nobody who publishes, as long as another one takes the event: `mandatory`
tells of those that none takes. But the server ends the consumers of a queue that it deletes, and tells them. So
events are lost to a subscriber around the deletion, as what waited in the queue is, and not until the next look.
"""

from __future__ import annotations

import asyncio

import structlog

from shared import cancellation
from shared.broker.rabbit.declarations import RabbitDeclarations
from shared.errors import UnavailableError

_log = structlog.get_logger(__name__)

_PAUSES_S = (0.0, 0.02, 0.05, 0.1, 0.3, 1.0)
"""A queue that is being deleted may still be there when its consumers are told, and then declaring it is idle."""


class Restoring:
    """Between two looks of the tending, which tells what cannot be declared, and consumes anew."""

    def __init__(self, declarations: RabbitDeclarations) -> None:
        self._declarations = declarations
        self._cut_off = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="restoring")

    async def stop(self) -> None:
        if self._task is not None:
            await cancellation.end(self._task)

    def cut_off(self) -> None:
        """The server has ended a consumer."""
        self._cut_off.set()

    async def _run(self) -> None:
        while True:
            await self._cut_off.wait()
            self._cut_off.clear()
            for pause_s in _PAUSES_S:
                await asyncio.sleep(pause_s)
                try:
                    await self._declarations.declare_again()
                except UnavailableError:
                    break  # the consumers come again by a new connection
                except Exception:  # noqa: BLE001 - whoever looks after the others must not die in silence
                    _log.exception("restoring.failed")
                    break
