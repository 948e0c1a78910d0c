"""HTTP connections: how long, how large and how many a client may make them.

uvicorn has a limit for idle connections only. Who sends half a request keeps its connection for good, a head
without end fills the memory, and a thousand of either take every descriptor of the process, which its relay and
its consumer need, too.
"""

from __future__ import annotations

import asyncio
import resource
import time
from dataclasses import dataclass, field
from typing import Any, Final

import httptools
import orjson
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from shared.http.problems import MEDIA_TYPE, ProblemKind
from shared.process.answers import Answers

_log = structlog.get_logger(__name__)

_CONNECTIONS_MAX: Final = 1_000
_LOG_INTERVAL_S: Final = 60.0
_FRAMING_PER_BODY_BYTE: Final = 16
"""Chunks of one byte each have 5 bytes around it."""

MALFORMED = ProblemKind(400, example="the request is not HTTP/1.1")
TIMED_OUT = ProblemKind(408, example="the request did not arrive in time")
HEAD_TOO_LARGE = ProblemKind(431, example="the head of the request is too large")
CROWDED = ProblemKind(503, retry_after_s=1, example="too many requests are being answered; try again")


def connections_max() -> int:
    """Half of what the process may open: the rest is for PostgreSQL, Redis, the broker, and its files."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _CONNECTIONS_MAX if descriptors == resource.RLIM_INFINITY else min(_CONNECTIONS_MAX, descriptors // 2)


@dataclass(slots=True)
class Limits:
    """The limits of one server's connections, and those of them that wait for their clients, the longest first."""

    connections_max: int = field(default_factory=connections_max)
    head_timeout_s: float = 10.0
    """From its first byte, or from connecting, until the head is complete."""
    body_timeout_s: float = 30.0
    """From then until the body is complete, whether or not it has been answered meanwhile."""
    answer_timeout_s: float = 30.0
    """How long an answer may wait for its client to read on."""
    linger_timeout_s: float = 5.0
    """How long what a client still sends is thrown away, when it has its answer and is to close. Closing at once
    would reset the connection, and the answer could be lost (RFC 9112, 9.6)."""
    head_bytes_max: int = 65_536
    waiting: dict[Connection, None] = field(default_factory=dict)
    logged_at: float = 0.0

    def protocol(self, **given: Any) -> Connection:
        """A new connection, as uvicorn asks for one."""
        return Connection(self, **given)

    def make_room(self, count: int) -> bool:
        """If there are too many, end the one that has waited for its client the longest; False if none does."""
        if count <= self.connections_max:
            return True
        if time.monotonic() - self.logged_at > _LOG_INTERVAL_S or not self.logged_at:
            self.logged_at = time.monotonic()
            _log.warning("http.connections_full", connections_max=self.connections_max)
        longest = next(iter(self.waiting), None)
        if longest is None:
            return False
        longest.make_way()
        return True


class Connection(HttpToolsProtocol):
    """One connection. It has a deadline at any time but while a request that has arrived is worked on.

    What a client asks to upgrade to is ignored (RFC 9110, 7.8): there is nothing here but HTTP/1.1. Java's client
    asks for HTTP/2 in its first request, whose body the parser takes for bytes of the other protocol.
    """

    def __init__(self, limits: Limits, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None
        self._answer_deadline: asyncio.TimerHandle | None = None
        self._in_head = True
        self._is_new = True
        self._done = False
        self._eof = False
        self._framing_bytes = 0
        self._framing_bytes_max = limits.head_bytes_max

    # -- from the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.answers = Answers(transport, self.loop)
        if self._limits.make_room(len(self.connections)):
            self._await_request()
            self._set_deadline(self._limits.head_timeout_s)
        else:
            self._refuse(CROWDED)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limits.waiting.pop(self, None)
        for timer in (self._deadline, self._answer_deadline):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._done:
            return
        if self._in_head and self._framing_bytes == 0:
            self._set_deadline(self._limits.head_timeout_s)
        self._is_new = False
        self._framing_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(MALFORMED)
        else:
            if self._framing_bytes > self._framing_bytes_max:
                self._refuse(HEAD_TOO_LARGE)

    def eof_received(self) -> bool:  # type: ignore[override]  # True: the transport stays open
        """The client sends no more; who only shut down that direction, as scripts do, still gets its answer."""
        self._eof = True
        return self._in_head and self.cycle is not None and not self.cycle.response_complete

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer_deadline = self.loop.call_later(self._limits.answer_timeout_s, self.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._answer_deadline is not None:
            self._answer_deadline.cancel()

    # -- from the parser

    def on_headers_complete(self) -> None:
        if self._upgrade_is_ignored():
            return
        super().on_headers_complete()
        self._in_head = False
        self._framing_bytes = 0
        self._set_deadline(self._limits.body_timeout_s)
        self.cycle.transport = self.answers if self.cycle.keep_alive else _Closing(self)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        self._framing_bytes -= len(body)
        self._framing_bytes_max += _FRAMING_PER_BODY_BYTE * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrade_is_ignored():
            return
        self._in_head = True
        self._framing_bytes = 0
        self._framing_bytes_max = self._limits.head_bytes_max
        self._unset_deadline()
        self._limits.waiting.pop(self, None)
        super().on_message_complete()
        if self.cycle.response_complete:
            self._await_request()

    # -- from uvicorn

    def on_response_complete(self) -> None:
        self.answers.end_answer()
        super().on_response_complete()
        if self._eof and self.cycle.response_complete:
            self.end()
        elif self._in_head and not self.pipeline and not self.transport.is_closing():
            self._await_request()

    def send_400_response(self, msg: str) -> None:
        self._refuse(MALFORMED)

    # -- ending it

    def abort(self) -> None:
        """End it at once; an answer that was not read is lost."""
        self._limits.waiting.pop(self, None)
        self.transport.abort()

    def make_way(self) -> None:
        """End it for another. Who has not been heard yet, being one of a crowd, is told to come again."""
        if self._is_new:
            self._refuse(CROWDED)
        else:
            self.abort()

    def end(self) -> None:
        """Send what is to be sent, and close when the client has; at once if it has nothing more to send."""
        if self._done:
            return
        self._done = True
        self.answers.flush()
        self._limits.waiting.pop(self, None)
        self._unset_keepalive_if_required()
        if (self._in_head and self._framing_bytes == 0) or not self.transport.can_write_eof():
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.write_eof()
            self.flow.resume_reading()
        self._unset_deadline()
        unread = self.transport.get_write_buffer_size() > 0
        timeout_s = self._limits.answer_timeout_s if unread else self._limits.linger_timeout_s
        self._deadline = self.loop.call_later(timeout_s, self.transport.abort)

    def _refuse(self, problem: ProblemKind) -> None:
        """Say why, unless that would be taken for the answer to a request that is worked on; and close."""
        working = self.cycle is not None and not self.cycle.response_complete
        if not working or not (self._in_head or self.cycle.response_started):
            body = orjson.dumps(problem.document(problem.example, "/"))
            headers = [
                *self.server_state.default_headers,
                (b"content-type", MEDIA_TYPE.encode()),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
            ]
            if problem.retry_after_s is not None:
                headers.append((b"retry-after", b"%d" % problem.retry_after_s))
            lines = [b"%b: %b\r\n" % header for header in headers]
            self.answers.write(b"".join([STATUS_LINE[problem.status], *lines, b"\r\n", body]))
        if working:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.end()

    # -- waiting for the client

    def _await_request(self) -> None:
        self._limits.waiting.pop(self, None)
        if not self._done:
            self._limits.waiting[self] = None

    def _set_deadline(self, timeout_s: float) -> None:
        self._unset_deadline()
        self._deadline = self.loop.call_later(timeout_s, self._on_deadline, timeout_s)

    def _unset_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self, timeout_s: float) -> None:
        if self.flow.read_paused and not self.cycle.response_complete:
            self._set_deadline(timeout_s)  # it is us who do not read, because of a request before this one
        elif self._in_head and self._framing_bytes == 0:
            self.end()  # it never began a request, so there is none to answer
        else:
            self._refuse(TIMED_OUT)

    # -- protocols that are not spoken here

    def _upgrade_is_ignored(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Give the parser the same request without the header that stopped it, and what came behind its head."""
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        head += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._framing_bytes = 0
        self.data_received(b"".join([*head, b"\r\n", rest]))


class _Closing:
    """What an answer with which the connection ends writes to: closing waits until the request has arrived."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.write = connection.answers.write
        self.is_closing = connection.answers.is_closing

    def close(self) -> None:
        self._connection.end()
