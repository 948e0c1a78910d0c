"""Puts what many clients ask at the same time together, so that one statement answers all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Final, Generic, TypeVar

from shared.errors import UnavailableError

Question = TypeVar("Question")
Answer = TypeVar("Answer")

TOGETHER_MAX: Final = 200
"""Questions of one call."""
CALLS_MAX: Final = 2
"""Calls at once: so many connections to the database are taken, however many clients there are."""
WAITING_MAX: Final = 5_000
"""Questions that wait for their call; more are turned away."""


class Gathering(Generic[Question, Answer]):
    """Gathers the questions of one process.

    `put` answers several, in their order, each by an answer or an error. A question is put in the next turn of the
    event loop, with the others of this one. While as many calls run as may, those that come wait, and are put
    together. What a call does belongs to no one asker: it runs in a context of its own.
    """

    def __init__(self, put: Callable[[Sequence[Question]], Awaitable[Sequence[Answer | Exception]]]) -> None:
        self._put = put
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._running = 0

    async def ask(self, question: Question) -> Answer:
        """The answer. Raises the error that is given as one, what `put` raises, `UnavailableError` for too many.

        A question whose asker does not wait any more may be put all the same.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise UnavailableError(f"{WAITING_MAX} wait already")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._running < CALLS_MAX:
            self._running += 1
            call = asyncio.create_task(self._work(), name="gathering", context=Context())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        return await answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                portion = [self._waiting.popleft() for _ in range(min(TOGETHER_MAX, len(self._waiting)))]
                portion = [(question, answer) for question, answer in portion if not answer.done()]
                if portion:
                    await self._call(portion)
        finally:
            # In the turn in which nothing was waiting: whoever comes next finds room for a call.
            self._running -= 1

    async def _call(self, portion: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        told: Sequence[Answer | Exception]
        try:
            told = await self._put([question for question, _ in portion])
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            told = [error] * len(portion)
        for (_, answer), one in zip(portion, told, strict=True):
            if answer.done():
                continue
            if isinstance(one, Exception):
                answer.set_exception(one)
            else:
                answer.set_result(one)
