"""Request bodies: JSON of a bounded size, or under one path forms, or a problem document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http.problems import BODY_BYTES_MAX, INVALID, TOO_LARGE, UNSUPPORTED, FieldError, respond

FORM_BYTES_MAX: Final = 10_000
"""Largest form in bytes."""
_FORM: Final = "application/x-www-form-urlencoded"
_PARAMETER: Final = re.compile(
    r"""[ \t]*;[ \t]*(?:([!#$%&'*+.^_`|~0-9a-z-]+)=([!#$%&'*+.^_`|~0-9a-z-]+|"(?:[^"\\]|\\.)*"))?"""
)
"""One parameter of a media type, or the nothing that may stand for one (RFC 9110, 5.6.6), in lower case."""
_NO_FORM: Final = f"the body must be a form, {_FORM}, of at most {FORM_BYTES_MAX} bytes"
_CHARSETS: Final = frozenset({"utf-8", "utf8"})


class JsonBodies:
    """Lets through what is JSON of at most `BODY_BYTES_MAX` bytes, before any route or transaction runs.

    A route that takes no body would never look at one, and would act although it is too large; and the parser
    of the standard library, which FastAPI uses, accepts lone surrogates and NaN and fails on deep nesting.
    So the body is read and checked here. What routes see is the same JSON in its shortest form, which also
    makes equal bodies equal in bytes (`shared.http.idempotency` compares them).

    Whether there is a body, a length tells at once. Chunks do not: proxies send on in chunks what has no body at
    all (RFC 9112, 6: framing is not content), so their first bytes are awaited before anything is asked of them.

    Under the path `forms_under`, if one is given, a body is a form of at most `FORM_BYTES_MAX` bytes instead; its
    route reads it as it came.
    """

    def __init__(self, app: ASGIApp, forms_under: str | None = None) -> None:
        self._app = app
        self._forms_under = forms_under

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _may_have_body(headers := Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        if "transfer-encoding" in headers:
            beginning = await _until_bytes(receive)
            receive = replayed([beginning], receive)
            if beginning["type"] == "http.request" and not beginning.get("body", b""):
                await self._app(scope, receive, send)
                return
        await self._check(headers, scope, receive, send)

    async def _check(self, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        form = self._takes_forms(scope["path"])
        most, is_one, example = (FORM_BYTES_MAX, _is_form, _NO_FORM) if form else (BODY_BYTES_MAX, _is_json, None)
        problem = TOO_LARGE if _length(headers) > most else None if is_one(headers) else UNSUPPORTED
        raw = None if problem else await _read(receive, most)
        if raw is not None and len(raw) > most:
            problem = TOO_LARGE
        if problem:
            await respond(scope, problem, example or problem.example)(scope, receive, send)
            return
        if raw is None:
            return
        try:
            body = raw if form else orjson.dumps(orjson.loads(raw))
        except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
            wrong = FieldError(location=["body"], message=_why_not_json(error))
            await respond(scope, INVALID, "the body is not acceptable JSON", [wrong])(scope, receive, send)
            return
        await self._app(scope, replayed([body_of(body)], receive), send)

    def _takes_forms(self, path: str) -> bool:
        return self._forms_under is not None and f"{path}/".startswith(f"{self._forms_under}/")


def _may_have_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or _length(headers) > 0


def _length(headers: Headers) -> int:
    return int(headers.get("content-length", "0"))


def _is_json(headers: Headers) -> bool:
    """Whether the one `Content-Type` is JSON's and no `charset` contradicts it; JSON has no other parameters, and
    those that it does not have say nothing (RFC 8259, 11)."""
    types = set(headers.getlist("content-type"))
    if len(types) != 1:
        return False
    media_type, semicolon, parameters = types.pop().lower().partition(";")
    return (
        media_type.strip() == "application/json"
        and _charsets(semicolon + parameters) <= _CHARSETS
        and not _is_encoded(headers)
    )


def _is_encoded(headers: Headers) -> bool:
    encodings = ",".join(headers.getlist("content-encoding")).lower().split(",")
    return not {encoding.strip() for encoding in encodings} <= {"identity", ""}


def _is_form(headers: Headers) -> bool:
    types = headers.getlist("content-type")
    return len(types) == 1 and types[0].lower().partition(";")[0].strip() == _FORM and not _is_encoded(headers)


def _charsets(parameters: str) -> set[str]:
    """Every `charset` among well-formed parameters; from the first that is not, nothing more is read."""
    found: set[str] = set()
    position = 0
    while parameter := _PARAMETER.match(parameters, position):
        position = parameter.end()
        if parameter[1] == "charset":
            found.add(parameter[2].strip('"'))
    return found


def _why_not_json(error: Exception) -> str:
    """The parser's reason, without the part of the document that it may quote."""
    if isinstance(error, orjson.JSONDecodeError):
        return f"not JSON: {error.msg}"
    return "nested too deeply"


async def _until_bytes(receive: Receive) -> Message:
    """The first message with a part of the body, or the one with which it ends or the client goes away."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or message.get("body", b"") or not message.get("more_body", False):
            return message


async def _read(receive: Receive, most: int) -> bytes | None:
    """The body, or its beginning if it has more than `most` bytes; None when the client went away."""
    chunks: list[bytes] = []
    length = 0
    while length <= most:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        chunks.append(chunk)
        length += len(chunk)
        if not message.get("more_body", False):
            break
    return b"".join(chunks)


def body_of(body: bytes) -> Message:
    """The message with a whole body."""
    return {"type": "http.request", "body": body, "more_body": False}


def replayed(messages: Sequence[Message], receive: Receive) -> Receive:
    """A receive channel that hands over these messages and then what the connection says."""
    pending = list(reversed(messages))

    async def received() -> Message:
        return pending.pop() if pending else await receive()

    return received
