"""Server-sent events (HTML, 9.2): how something stands is sent whenever it has changed, until it is over.

A stream holds no transaction and no thread, and nothing is kept for a reader who is slow: what is to be sent is
looked up when the last of it has been read. A reader who takes nothing at all for too long is cut off by the
server's own limits. How many streams a process has open is bounded; more are refused with 503.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

import structlog
from fastapi import Header
from fastapi.sse import format_sse_event
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from shared.errors import TransientError
from shared.http.problems import ProblemKind, respond

_log = structlog.get_logger(__name__)

STREAMS_MAX: Final = 50
LOOK_INTERVAL_S: Final = 1.0
SIGN_OF_LIFE_S: Final = 15.0

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID", description="The `id` of the last event that the client has read.", max_length=100
    ),
]
"""A route's parameter for the header of that name."""

CROWDED: Final = ProblemKind(
    503,
    "too-many-streams",
    "Too many event streams are open",
    retry_after_s=5,
    example="too many clients are being told of changes; try again",
)


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; `data` is JSON text without line breaks, `id` comes back as `Last-Event-ID`."""

    event: str
    data: str
    id: str | None = None


class Watch(Protocol):
    """What a stream tells of."""

    @property
    def is_over(self) -> bool:
        """Nothing will change any more."""
        ...

    async def look(self) -> Sequence[ServerEvent]:
        """What has changed since the last look. Raises `TransientError`; then it is asked again."""
        ...


class EventStreams:
    """The streams of one process. They end when `stopping` is set, and their readers go to another process."""

    def __init__(
        self,
        stopping: asyncio.Event,
        *,
        streams_max: int = STREAMS_MAX,
        look_interval_s: float = LOOK_INTERVAL_S,
        sign_of_life_s: float = SIGN_OF_LIFE_S,
    ) -> None:
        self.open = 0
        self.streams_max = streams_max
        self._stopping = stopping
        self._look_interval_s = look_interval_s
        self._sign_of_life_s = sign_of_life_s

    def response(self, first: Sequence[ServerEvent], watch: Watch) -> EventStream:
        """A stream that begins with `first`, what the first look has told."""
        return EventStream(self, self._told(first, watch))

    async def _told(self, events: Sequence[ServerEvent], watch: Watch) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while True:
            for event in events:
                yield format_sse_event(data_str=event.data, event=event.event, id=event.id)
            told_at = loop.time()
            events = ()
            while not events:
                if watch.is_over or self._stopping.is_set():
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), self._look_interval_s)
                try:
                    events = await watch.look()
                except TransientError as error:
                    _log.warning("event_stream.waiting", error=str(error))
                if not events and loop.time() - told_at >= self._sign_of_life_s:
                    yield format_sse_event(comment="alive")
                    told_at = loop.time()


class EventStream(StreamingResponse):
    """One stream; 503 in its place where too many are open."""

    media_type = "text/event-stream"

    def __init__(self, streams: EventStreams, content: AsyncIterator[bytes], status_code: int = 200) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(content, status_code, headers)  # FastAPI reads the status's default for its document
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await Response(None, headers={"content-type": self.headers["content-type"]})(scope, receive, send)
            return
        if self._streams.open >= self._streams.streams_max:
            await respond(scope, CROWDED, CROWDED.example)(scope, receive, send)
            return
        self._streams.open += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.open -= 1
