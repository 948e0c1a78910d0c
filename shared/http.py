"""HTTP at the edge of every service: problem details (RFC 9457), request bodies, cursors.

Starlette only, so that no shared module depends on FastAPI. `install` gives an application all of it:

    request ── UnexpectedErrors ── JsonBodies ── routes
                 500, logged         413 415 422     domain errors by the service's own table, 503 for
                                                     `TransientError`, 404 and 405 from the router
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import orjson
import structlog
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import TransientError
from shared.telemetry import current_trace_ids

BODY_BYTES_MAX: Final = 1_000_000
"""Largest request body in bytes; what is longer is refused while it is still arriving."""

PAGE_SIZE: Final = 50
PAGE_SIZE_MAX: Final = 500

MEDIA_TYPE: Final = "application/problem+json"
_ERRORS_MAX = 20
_CURSOR_LENGTH_MAX = 64
_SEQUENCE_MAX = 2**63 - 1

log = structlog.get_logger(__name__)


class FieldError(BaseModel):
    """One thing wrong with a request."""

    location: list[str | int] = Field(examples=[["body", "lines", 0, "quantity"]])
    message: str = Field(examples=["Input should be less than or equal to 1000"])


class ProblemDocument(BaseModel):
    """An error as RFC 9457 problem details; `errors` only where a request was invalid."""

    type: str = Field(description="A URN that names the kind of problem; `about:blank`: what the status says.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path of the request.")
    trace_id: str | None = Field(None, description="Where to look in traces and logs.")
    errors: list[FieldError] | None = None


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """What a kind of error looks like from outside. Without a `slug` its type and title are the status's."""

    status: int
    slug: str | None = None
    title: str | None = None
    retry_after_s: int | None = None
    example: str = ""

    @property
    def type(self) -> str:
        return f"urn:tandem:problem:{self.slug}" if self.slug else "about:blank"

    def document(self, detail: str, instance: str, errors: Sequence[FieldError] = ()) -> dict[str, Any]:
        document = ProblemDocument(
            type=self.type,
            title=self.title or HTTPStatus(self.status).phrase,
            status=self.status,
            detail=detail,
            instance=instance,
            trace_id=current_trace_ids().get("trace_id"),
            errors=list(errors) or None,
        )
        return document.model_dump(exclude_none=True)


NOT_FOUND = ProblemKind(404, example="order 0198c0de-0000-7000-8000-000000000000 does not exist")
TOO_LARGE = ProblemKind(
    413, title="Content Too Large", example=f"the body is over the {BODY_BYTES_MAX} bytes allowed"
)
UNSUPPORTED = ProblemKind(415, example="the body must be application/json, encoded in UTF-8")
INVALID = ProblemKind(
    422, "invalid-request", "The request is invalid", example="body.name: String should have at least 1 character"
)
UNAVAILABLE = ProblemKind(503, retry_after_s=1, example="a server that is needed does not answer; try again")
OUTBOX_FULL = ProblemKind(
    503,
    "outbox-full",
    "Too many events wait to be published",
    retry_after_s=5,
    example="nothing can be changed until events that wait have been published; try again",
)
UNEXPECTED = ProblemKind(500, example="the request failed unexpectedly; the log says why")


class InvalidRequestError(Exception):
    """The request is invalid in a way that its schema cannot say; answered with 422."""

    def __init__(self, location: Sequence[str | int], message: str) -> None:
        super().__init__(message)
        self.location = location


def respond(
    scope: Scope,
    kind: ProblemKind,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response for a problem of this kind with the request of `scope`."""
    body = orjson.dumps(kind.document(detail, quote(scope["path"]), errors))
    extra = {"retry-after": str(kind.retry_after_s)} if kind.retry_after_s is not None else {}
    return Response(body, kind.status, {**(headers or {}), **extra}, MEDIA_TYPE)


class UnexpectedErrors:
    """Answers whatever nobody expected with a 500 problem, and logs it with its trace id, without payload."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            log.exception("request failed unexpectedly", method=scope["method"], path=scope["path"])
            if started:
                raise  # too late for another answer: the server closes the connection
            await respond(scope, UNEXPECTED, UNEXPECTED.example)(scope, receive, send)


class JsonBodies:
    """Lets through what is JSON of at most `BODY_BYTES_MAX` bytes, before any route or transaction runs.

    A route that takes no body would never look at one, and would act although it is too large; and the parser
    of the standard library, which FastAPI uses, accepts lone surrogates and NaN and fails on deep nesting.
    So the body is read and checked here. What routes see is the same JSON in its shortest form, which also
    makes equal bodies equal in bytes (`shared.idempotency` compares them).
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


def install(
    app: Starlette, invalid_request: type[Exception], kinds: Mapping[type[Exception], ProblemKind]
) -> None:
    """Answer every error of `app` with problem details.

    `kinds` is the service's own table: which error of its domain is which kind of problem; the text of the
    error becomes the detail. `invalid_request` is the framework's error for a request that does not match its
    schema (it has `errors()`). An invalid id in the path names nothing, so it is answered with 404.
    """

    async def on_invalid(request: Request, error: Exception) -> Response:
        return _invalid(request, error.errors())  # type: ignore[attr-defined]

    async def on_invalid_by_hand(request: Request, error: Exception) -> Response:
        assert isinstance(error, InvalidRequestError)
        return _invalid(request, [{"loc": error.location, "msg": str(error)}])

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = {"allow": _allowed(request)} if error.status_code == 405 else error.headers
        return respond(request.scope, ProblemKind(error.status_code), error.detail, headers=headers)

    async def on_transient(request: Request, error: Exception) -> Response:
        log.warning("request could not be served", path=request.url.path, error=type(error).__name__)
        return respond(request.scope, UNAVAILABLE, UNAVAILABLE.example)

    async def on_known(request: Request, error: Exception) -> Response:
        kind = next(kinds[base] for base in type(error).__mro__ if base in kinds)
        return respond(request.scope, kind, str(error))

    app.add_exception_handler(invalid_request, on_invalid)
    app.add_exception_handler(InvalidRequestError, on_invalid_by_hand)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(TransientError, on_transient)
    for error_type in kinds:
        app.add_exception_handler(error_type, on_known)
    app.add_middleware(JsonBodies)
    app.add_middleware(UnexpectedErrors)


def _invalid(request: Request, errors: Sequence[Mapping[str, Any]]) -> Response:
    """422 with what is wrong and where, without the values; 404 when it is the path that is wrong."""
    for error in errors:
        if error["loc"][0] == "path":
            return respond(request.scope, NOT_FOUND, f"{error['loc'][-1]} in the path is no UUID: nothing has it")
    listed = [FieldError(location=list(error["loc"]), message=error["msg"]) for error in errors[:_ERRORS_MAX]]
    first = f"{'.'.join(str(part) for part in listed[0].location)}: {listed[0].message}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return respond(request.scope, INVALID, first + more, listed)


def _allowed(request: Request) -> str:
    """The methods that the path of the request does take, of all its routes; the router names only the first's."""
    methods: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is Match.PARTIAL:
            methods |= route.methods or set()
    return ", ".join(sorted(methods))


# -- OpenAPI


def problem_responses(*kinds: ProblemKind) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems, with an example of each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        response = responses.setdefault(
            kind.status,
            {
                "description": HTTPStatus(kind.status).phrase,
                "content": {
                    MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "examples": {}}
                },
            },
        )
        if kind.retry_after_s is not None:
            description = "Seconds to wait before trying again"
            response["headers"] = {"Retry-After": {"description": description, "schema": {"type": "integer"}}}
        examples = response["content"][MEDIA_TYPE]["examples"]
        examples[kind.slug or "problem"] = {"value": kind.document(kind.example, "/the/path")}
    return responses


def add_problem_schema(document: dict[str, Any]) -> None:
    """Add to an OpenAPI document the schemas that `problem_responses` refers to."""
    schema = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs")
    document.setdefault("components", {}).setdefault("schemas", {}).update(
        {**definitions, "ProblemDocument": schema}
    )


# -- cursors


def encode_cursor(position: str) -> str:
    """The opaque cursor that continues after `position`."""
    return base64.urlsafe_b64encode(position.encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> str:
    """What `encode_cursor` was given. Raises `InvalidRequestError` (422) for anything else."""
    if len(cursor) > _CURSOR_LENGTH_MAX:
        raise bad_cursor()
    padding = "=" * (-len(cursor) % 4)
    try:
        return base64.b64decode(cursor + padding, "-_", validate=True).decode("ascii")
    except ValueError:
        raise bad_cursor() from None


def decode_sequence(cursor: str) -> int:
    """The sequence number that a cursor stands for: one that a bigint column can hold. Raises
    `InvalidRequestError`."""
    position = decode_cursor(cursor)
    if not position.isdecimal() or not 0 < int(position) <= _SEQUENCE_MAX:
        raise bad_cursor()
    return int(position)


def bad_cursor() -> InvalidRequestError:
    return InvalidRequestError(["query", "cursor"], "not a cursor that this service gave out")
