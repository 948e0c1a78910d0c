"""Asks others and waits for their answers, a bounded number at once.

A reply is a hint. What was carried out is what was committed at whoever answered: a reply may be lost, and is,
when either process or the broker goes away; so whoever asks must be able to look for the outcome under an id of
its own.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

from shared import failpoints
from shared.broker import Broker, Message, Reply
from shared.envelope import Envelope
from shared.errors import UnavailableError, UndecodableError
from shared.event import EventData
from shared.failpoints import FailPoints
from shared.reply.answers import ANSWERED, REFUSED
from shared.reply.errors import NoAnswerError, RefusedError, TooManyRequestsError
from shared.telemetry import Spans

_log = structlog.get_logger(__name__)

REQUESTS_IN_FLIGHT_MAX: Final = 1_000
_TO_PUBLISH_SHARE: Final = 0.2
"""Of the time to answer in, in which the broker must confirm the request. With the rest, within which it may be
begun after the broker took it, that is all: what nobody answered in time is not begun afterwards."""


class Requests:
    """One process's requests that wait for an answer."""

    def __init__(self, broker: Broker, service: str, spans: Spans, fail_points: FailPoints | None = None) -> None:
        self._broker = broker
        self._service = service
        self._spans = spans
        self._fail_points = fail_points
        self._waiting: dict[str, asyncio.Future[Envelope]] = {}
        self._channels: set[str] = set()
        self._receives = False
        self._preparing = asyncio.Lock()

    @property
    def in_flight(self) -> int:
        """How many wait for an answer."""
        return len(self._waiting)

    async def prepare(self, channel: str) -> None:
        """What the first request on a channel would do by itself: be ready for replies, and declare the channel.
        Raises as `Broker.declare`; bounded in time by the broker's own limits."""
        async with self._preparing:
            if not self._receives:
                await self._broker.receive_replies(self._service, self._receive)
                self._receives = True
            if channel not in self._channels:
                await self._broker.declare([channel])
                self._channels.add(channel)

    async def ask(self, channel: str, data: EventData, timeout_s: float, *, subject: str | None = None) -> Any:
        """Send a request and return what is answered, JSON, within `timeout_s`; the first on a channel prepares
        before that.

        `channel` is one for requests, with one subscriber, which answers. It is begun within four fifths of the
        time after the broker took it, or never. `subject` (the request's id unless said) is what it is about:
        those with the same one are handed over in order.

        Raises `TooManyRequestsError` over `REQUESTS_IN_FLIGHT_MAX`, `NoAnswerError`, `RefusedError`,
        `UnavailableError` or `UnroutableError` when the broker does not confirm it, `EventTooLargeError`,
        `ValueError` for a time out of range.
        """
        await self.prepare(channel)
        if len(self._waiting) >= REQUESTS_IN_FLIGHT_MAX:
            raise TooManyRequestsError(f"{REQUESTS_IN_FLIGHT_MAX} requests wait for an answer already")
        answer: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        with self._spans.ask(channel, data.event_type, subject or "") as asked:
            request = Envelope(
                id=asked.event_id,
                source=f"/services/{self._service}",
                type=data.event_type,
                subject=subject,
                dataschema=data.schema_uri(),
                traceparent=asked.traceparent,
                correlationid=asked.event_id,
                data=data.model_dump(mode="json"),
            )
            message = Message(channel, data.event_type, request.key, request.encode())
            self._waiting[request.id] = answer
            limit = asyncio.timeout(timeout_s)
            try:
                async with limit:
                    await self._send(message, request.id, timeout_s)
                    if self._fail_points is not None:
                        self._fail_points.reach(failpoints.REQUEST_SENT)
                    reply = await answer
                    if self._fail_points is not None:
                        self._fail_points.reach(failpoints.REPLY_RECEIVED)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise NoAnswerError(f"{data.event_type}: no answer within {timeout_s:g} s") from error
            finally:
                del self._waiting[request.id]
            self._spans.answered(channel, request.id, reply.traceparent)
        if reply.type == REFUSED:
            raise RefusedError(*_refusal(reply.data))
        return reply.data

    async def _send(self, message: Message, request_id: str, timeout_s: float) -> None:
        """Raises `UnavailableError` when it is not confirmed early enough: it may be carried out all the same."""
        limit = asyncio.timeout(timeout_s * _TO_PUBLISH_SHARE)
        try:
            async with limit:
                await self._broker.publish_request(message, request_id, timeout_s * (1 - _TO_PUBLISH_SHARE))
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise UnavailableError(f"{message.type}: the broker does not confirm it in time") from error

    def _receive(self, reply: Reply) -> None:
        """Give an answer to who waits for it. What comes too late, twice, or for somebody else is dropped."""
        waiting = self._waiting.get(reply.correlation_id)
        if waiting is None or waiting.done():
            _log.debug("reply.dropped", correlation_id=reply.correlation_id)
            return
        try:
            envelope = Envelope.decode(reply.body)
        except UndecodableError as error:
            _log.warning("reply.undecodable", correlation_id=reply.correlation_id, error=str(error))
            return
        if envelope.type not in {ANSWERED, REFUSED} or envelope.causationid != reply.correlation_id:
            _log.warning("reply.foreign", correlation_id=reply.correlation_id, type=envelope.type)
            return
        waiting.set_result(envelope)


def _refusal(data: Any) -> tuple[str, str]:
    """Reason and detail, whatever a stranger put there."""
    told = data if isinstance(data, dict) else {}
    return str(told.get("reason", "")), str(told.get("detail", ""))
