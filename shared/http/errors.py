"""Errors of an HTTP application are answered with problem documents, whatever they are.

request ── UnexpectedErrors ── JsonBodies ── routes
             500, logged         413 415 422     domain errors by the service's own table, 503 for
                                                 `TransientError`, 404 and 405 from the router
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import TransientError
from shared.http.bodies import JsonBodies
from shared.http.problems import (
    INVALID,
    NOT_FOUND,
    UNAVAILABLE,
    UNEXPECTED,
    FieldError,
    InvalidRequestError,
    ProblemKind,
    log,
    respond,
)

_ERRORS_MAX = 20


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


def answer_errors(
    app: Starlette,
    invalid_request: type[Exception],
    kinds: Mapping[type[Exception], ProblemKind],
    forms_under: str | None = None,
) -> None:
    """Answer every error of `app`, and every body that is not JSON of a bounded size, with problem details.

    `kinds` is the service's own table: which error of its domain is which kind of problem; the text of the
    error becomes the detail. `invalid_request` is the framework's error for a request that does not match its
    schema (it has `errors()`). An invalid id in the path names nothing, so it is answered with 404. `forms_under`
    is the path of pages whose forms are no JSON.
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
    app.add_middleware(JsonBodies, forms_under=forms_under)
    app.add_middleware(UnexpectedErrors)


def _invalid(request: Request, errors: Sequence[Mapping[str, Any]]) -> Response:
    """422 with what is wrong and where, without the values; 404 when it is the path that is wrong."""
    for error in errors:
        if error["loc"][0] == "path":
            what = "is no UUID" if error.get("type", "uuid").startswith("uuid") else "is not well-formed"
            return respond(request.scope, NOT_FOUND, f"{error['loc'][-1]} in the path {what}: nothing has it")
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
    if "GET" in methods:
        methods.add("HEAD")  # no method of FastAPI's routes, and yet answered (`shared.http.application`)
    return ", ".join(sorted(methods))
