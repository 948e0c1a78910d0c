"""A small HTTP/1.1 client: JSON over kept connections, and little else.

The load generator shares the CPUs with what it measures. A request through httpx took several milliseconds of CPU
time here under load (its pool looks at every connection for every request), through this a few tenths of one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

_HEAD_END = b"\r\n\r\n"


class NoAnswerError(Exception):
    """The request may have been served or not; the message is the kind of failure."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status code and body."""

    status: int
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(frozen=True, slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class HttpClient:
    """An async context manager. As many connections as requests are under way at once; idle ones are reused, the
    last one first."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._idle: dict[str, list[_Connection]] = defaultdict(list)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.writer.close()
        self._idle.clear()

    async def request(
        self, method: str, base_url: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one request and read its answer. Raises `NoAnswerError`."""
        message = _encode(method, base_url, path, body, headers or {})
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connect(base_url)
                connection.writer.write(message)
                head = await connection.reader.readuntil(_HEAD_END)
                status, length, keep = _read_head(head)
                answer = Answer(status, await connection.reader.readexactly(length))
        except TimeoutError:
            raise NoAnswerError("Timeout") from None
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise NoAnswerError(type(error).__name__) from None
        else:
            if keep:
                self._idle[base_url].append(connection)
                connection = None
            return answer
        finally:
            if connection is not None:
                connection.writer.close()

    async def _connect(self, base_url: str) -> _Connection:
        idle = self._idle[base_url]
        while idle:
            connection = idle.pop()
            if not connection.reader.at_eof() and not connection.writer.is_closing():
                return connection
            connection.writer.close()
        address = urlsplit(base_url)
        return _Connection(*await asyncio.open_connection(address.hostname, address.port))


def _encode(method: str, base_url: str, path: str, body: Any, headers: dict[str, str]) -> bytes:
    content = b"" if body is None else orjson.dumps(body)
    lines = [f"{method} {path} HTTP/1.1", f"host: {urlsplit(base_url).netloc}", f"content-length: {len(content)}"]
    if body is not None:
        lines.append("content-type: application/json")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def _read_head(head: bytes) -> tuple[int, int, bool]:
    """Status code, length of the body, whether the connection stays open. Raises ValueError for other HTTP."""
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, status = status_line.split(" ", 2)[:2]
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if version != "HTTP/1.1" or "content-length" not in fields:
        raise ValueError("only answers with a content length are understood")
    return int(status), int(fields["content-length"]), fields.get("connection", "").lower() != "close"
