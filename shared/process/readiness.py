"""What a readiness probe asks, answered in time whatever hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from shared.errors import TransientError

_log = structlog.get_logger(__name__)

ANSWER_WITHIN_S = 0.8
"""So long a probe waits: with what it takes besides, it has its answer within a second."""
_GIVE_UP_S = 5.0


class Question:
    """Whether one server does what the process needs of it, asked when somebody wants to know.

    Whoever asks while it is being asked shares that answer: however many probes come, a server that hangs has one
    question open.
    """

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        """`ask` raises what is wrong."""
        self._ask = ask
        self._asking: asyncio.Task[str | None] | None = None

    async def problem(self) -> str | None:
        """What is wrong, for a person; None when nothing is. Takes `ANSWER_WITHIN_S` at most."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._answer(), name="readiness")
        asking = self._asking
        # Not cancelled when the time is up: to end politely with a server that hangs takes as long as to ask it.
        await asyncio.wait([asking], timeout=ANSWER_WITHIN_S)
        return asking.result() if asking.done() else "no answer in time"

    async def _answer(self) -> str | None:
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                await self._ask()
        except (TransientError, TimeoutError) as error:
            return str(error) or "no answer in time"
        except Exception as error:  # noqa: BLE001 - whatever it is, the probe says it
            _log.exception("readiness.failed")
            return f"{type(error).__name__}: {error}"
        return None
