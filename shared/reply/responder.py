"""Answers requests: handlers whose result goes back to who asked, once what they did is committed.

A request is an event with somebody waiting: it goes through the same pipeline, so that its effect is single,
whatever is delivered twice. What comes twice is answered once, or not at all: a reply is a hint.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from pydantic import BaseModel

from shared import failpoints
from shared.broker import Broker
from shared.errors import PermanentError, SchemaViolationError, TandemError
from shared.event import Asked, Event
from shared.failpoints import FailPoints
from shared.publishing import UnitOfWork
from shared.reply.answers import answered, refused
from shared.telemetry import Spans

_log = structlog.get_logger(__name__)

Answer = Callable[[Any, UnitOfWork], Awaitable[BaseModel]]
"""`async def on_transfer_asked(event: Event[TransferAsked], uow: UnitOfWork) -> TransferAnswered`"""

REPLIES_WAITING_MAX: Final = 2_000
"""So many replies wait to be sent; more are dropped, and their requesters look for the outcome."""
_REPLIES_AT_ONCE: Final = 200


class Responder:
    """One process's answers."""

    def __init__(self, broker: Broker, service: str, spans: Spans, fail_points: FailPoints | None = None) -> None:
        self._broker = broker
        self._service = service
        self._spans = spans
        self._fail_points = fail_points
        self._replies: deque[tuple[Asked, bytes]] = deque()
        self._sending: asyncio.Task[None] | None = None

    def answering(self, handle: Answer) -> Callable[[Event[Any], UnitOfWork], Awaitable[None]]:
        """The handler of a subscriber with `answers=True` that gives back what `handle` returns.

        A request whose time is over is not begun, and never will be: the inbox has it. What `handle` raises as a
        `PermanentError` is the answer: its effects are taken back, and it is no dead letter. Other errors are
        those of any handler, and who asked is told when they have made it one (`put_aside`).
        """

        async def on_request(event: Event[Any], uow: UnitOfWork) -> None:
            asked = event.asked
            if asked is None:
                raise SchemaViolationError(f"{event.envelope.type}: nobody says how long an answer is waited for")
            if time.monotonic() > asked.begin_by_s:
                _log.info("reply.request_expired", type=event.envelope.type, id=event.id)
                return
            try:
                data = (await handle(event, uow)).model_dump(mode="json")
                if self._fail_points is not None:
                    self._fail_points.reach(failpoints.ANSWERED)
                reply = answered(self._service, event.envelope, data, self._spans.current())
            except PermanentError as error:
                if not uow.can_discard_event:  # something is sent already: the whole transaction goes, and is told
                    raise
                uow.discard_event()
                reply = refused(self._service, event.envelope, error, self._spans.current())
            uow.after_commit(lambda: self._send_soon(asked, reply))

        return on_request

    async def put_aside(self, event: Event[Any], error: Exception, uow: UnitOfWork) -> None:
        """Tell who asked that the request has become a dead letter, with nothing carried out."""
        asked = event.asked
        if asked is not None:
            reply = refused(self._service, event.envelope, error, self._spans.current())
            uow.after_commit(lambda: self._send_soon(asked, reply))

    def _send_soon(self, asked: Asked, reply: bytes) -> None:
        if len(self._replies) >= REPLIES_WAITING_MAX:
            _log.warning("reply.dropped", correlation_id=asked.correlation_id, waiting=len(self._replies))
            return
        self._replies.append((asked, reply))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(), name="replies")

    async def _send(self) -> None:
        """Send what waits, some side by side; what the broker does not take is dropped."""
        while self._replies:
            portion = [self._replies.popleft() for _ in range(min(_REPLIES_AT_ONCE, len(self._replies)))]
            await asyncio.gather(*(self._send_one(asked, reply) for asked, reply in portion))

    async def _send_one(self, asked: Asked, reply: bytes) -> None:
        try:
            if self._fail_points is not None:
                self._fail_points.reach(failpoints.BEFORE_REPLY)
            await self._broker.publish_reply(asked, reply)
        except TandemError as error:
            _log.warning("reply.not_sent", correlation_id=asked.correlation_id, error=str(error))
        except Exception:  # noqa: BLE001 - one reply must not take the others with it
            _log.exception("reply.not_sent", correlation_id=asked.correlation_id)
