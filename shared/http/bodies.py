"""Request bodies: JSON of a bounded size, or a problem document."""

from __future__ import annotations

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http.problems import BODY_BYTES_MAX, INVALID, TOO_LARGE, UNSUPPORTED, FieldError, respond


class JsonBodies:
    """Lets through what is JSON of at most `BODY_BYTES_MAX` bytes, before any route or transaction runs.

    A route that takes no body would never look at one, and would act although it is too large; and the parser
    of the standard library, which FastAPI uses, accepts lone surrogates and NaN and fails on deep nesting.
    So the body is read and checked here. What routes see is the same JSON in its shortest form, which also
    makes equal bodies equal in bytes (`shared.http.idempotency` compares them).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(headers := Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        if int(headers.get("content-length", "0")) > BODY_BYTES_MAX:
            await respond(scope, TOO_LARGE, TOO_LARGE.example)(scope, receive, send)
            return
        if not _is_json(headers):
            await respond(scope, UNSUPPORTED, UNSUPPORTED.example)(scope, receive, send)
            return
        raw = await _read(receive)
        if raw is None:
            return
        if len(raw) > BODY_BYTES_MAX:
            await respond(scope, TOO_LARGE, TOO_LARGE.example)(scope, receive, send)
            return
        try:
            body = orjson.dumps(orjson.loads(raw))
        except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
            problem = FieldError(location=["body"], message=_why_not_json(error))
            await respond(scope, INVALID, "the body is not acceptable JSON", [problem])(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _is_json(headers: Headers) -> bool:
    media_type, _, parameters = headers.get("content-type", "").lower().partition(";")
    charset = parameters.partition("charset=")[2].strip().strip('"') or "utf-8"
    encoding = headers.get("content-encoding", "identity").lower()
    return media_type.strip() == "application/json" and charset in {"utf-8", "utf8"} and encoding == "identity"


def _why_not_json(error: Exception) -> str:
    """The parser's reason, without the part of the document that it may quote."""
    if isinstance(error, orjson.JSONDecodeError):
        return f"not JSON: {error.msg}"
    return "nested too deeply"


async def _read(receive: Receive) -> bytes | None:
    """The body, or its beginning if it is over the limit; None when the client went away."""
    chunks: list[bytes] = []
    length = 0
    while length <= BODY_BYTES_MAX:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        chunks.append(chunk)
        length += len(chunk)
        if not message.get("more_body", False):
            break
    return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive channel that hands over `body` once and then what the connection says."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
