"""The short way of a request that goes well: from its bytes to its endpoint, past layers that only others need.

The ordinary way has a dozen layers of Starlette, FastAPI and this package, most of which wrap what sends the
answer, keep a stack of things to close, or parse the body once more. A request costs 118 µs there besides its
endpoint, and 42 here (docs/performance.md). A route may be reached without them if all it takes are parts of its
path, headers, one model of a JSON body and the request itself, and it answers with a `Response`. Its parameters
are FastAPI's own fields, and judge what is sent.

Whatever is not plain goes the ordinary way, before anything was done: a field that is sent twice, chunks,
every value that is refused. So each refusal is the ordinary one's. What the endpoint raises is answered
by the ordinary way's own two layers for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from types import NoneType
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import orjson
from fastapi import FastAPI, params
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http.backpressure import OutboxGate
from shared.http.bodies import body_of, replayed
from shared.http.errors import UnexpectedErrors
from shared.http.problems import BODY_BYTES_MAX, log

_JSON: Final = frozenset(
    {b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"}
)
_ENCODINGS: Final = frozenset({b"transfer-encoding", b"content-encoding"})
_LENGTH_DIGITS_MAX: Final = 7
_END: Final = "tandem.end"
"""Where a scope has what an endpoint returned or raised, when the ordinary layers are to make the answer of it."""


class ShortWay:
    """ASGI application: endpoints for requests that are plain, and the `ordinary` way for all others."""

    def __init__(self, app: FastAPI, ordinary: ASGIApp, gate: OutboxGate | None) -> None:
        self._ordinary = ordinary
        self._gate = gate
        handlers = {kind: handler for kind, handler in app.exception_handlers.items() if kind is not Exception}
        self._end = UnexpectedErrors(ExceptionMiddleware(_end, handlers))
        routes = app.router.routes
        plain = [_Plain.of(route, routes[:place]) for place, route in enumerate(routes)]
        self._plain = [route for route in plain if route is not None]
        self._by_path = {
            (method, route.path): route for route in self._plain for method in route.methods if route.is_fixed()
        }
        self._methods = frozenset(method for route in self._plain for method in route.methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (route := self._find(scope)) is None:
            await self._ordinary(scope, receive, send)
            return
        headers = dict(scope["headers"])
        values = route.values(scope, headers)
        if values is None:
            await self._ordinary(scope, receive, send)
            return
        if route.body is not None:
            pieces = await _read(receive)
            if pieces is None:
                return
            body = _judged(route.body, pieces, values)
            if body is None:
                await self._ordinary(scope, replayed(pieces, receive), send)
                return
            receive = replayed([body_of(body)], receive)
        await self._serve(route, values, scope, receive, send)

    def _find(self, scope: Scope) -> _Plain | None:
        """The plain route for a request, if it is the first of all that take it."""
        method = scope["method"]
        if method not in self._methods or scope.get("root_path") or (self._gate is not None and self._gate.closed):
            return None
        path = scope["path"]
        fixed = self._by_path.get((method, path))
        if fixed is not None:
            return fixed
        for route in self._plain:
            if method in route.methods and route.route.path_regex.match(path):
                return route if route.is_first(scope) else None
        return None

    async def _serve(
        self, route: _Plain, values: dict[str, Any], scope: Scope, receive: Receive, send: Send
    ) -> None:
        scope["route"] = route.route
        scope["endpoint"] = route.endpoint
        if route.request is not None:
            values[route.request] = Request(scope, receive, send)
        try:
            response = await route.endpoint(**values)
        except Exception as error:  # noqa: BLE001 - answered as the ordinary way answers it
            scope[_END] = error
            await self._end(scope, receive, send)
            return
        if type(response) is not Response:
            scope[_END] = response
            await self._end(scope, receive, send)
            return
        try:
            await response(scope, receive, send)
        except Exception:
            log.exception("request failed unexpectedly", method=scope["method"], path=scope["path"])
            raise  # the answer has begun: the server closes the connection


@dataclass(frozen=True, slots=True)
class _Plain:
    """A route that may be reached without the ordinary layers, and what it takes.

    `headers` has a name as it is sent, the name of the parameter, and FastAPI's field for each; `parts` the same
    for the parts of the path. `request` is the name of the parameter for the request, if there is one.
    """

    route: APIRoute
    path: str
    methods: frozenset[str]
    endpoint: Callable[..., Awaitable[Response]]
    parts: tuple[tuple[str, Any], ...]
    headers: tuple[tuple[bytes, str, Any], ...]
    body: tuple[str, Any] | None
    request: str | None
    earlier: Sequence[BaseRoute]

    @classmethod
    def of(cls, route: BaseRoute, earlier: Sequence[BaseRoute]) -> _Plain | None:
        """None for a route that takes or answers anything else."""
        if not isinstance(route, APIRoute) or not _is_plain(route):
            return None
        takes = route.dependant
        plain = cls(
            route=route,
            path=route.path,
            methods=frozenset(route.methods or ()),
            endpoint=route.endpoint,
            parts=tuple((field.name, field) for field in takes.path_params),
            headers=tuple((field.alias.encode().lower(), field.name, field) for field in takes.header_params),
            body=(takes.body_params[0].name, takes.body_params[0]) if takes.body_params else None,
            request=takes.request_param_name,
            earlier=earlier,
        )
        if plain.is_fixed() and not all(plain.is_first(_scope(method, plain.path)) for method in plain.methods):
            return None
        return plain

    def is_fixed(self) -> bool:
        """Whether it has one path."""
        return "{" not in self.path

    def is_first(self, scope: Scope) -> bool:
        """Whether no earlier route takes the request, too."""
        return not any(route.matches(scope)[0] is Match.FULL for route in self.earlier)

    def values(self, scope: Scope, headers: Mapping[bytes, bytes]) -> dict[str, Any] | None:
        """Its parameters but the body, by their names; None unless all is as plain as can be."""
        if not self._has_plain_head(scope, headers):
            return None
        values: dict[str, Any] = {}
        path_params: dict[str, Any] = {}
        for name, parameter, field in self.headers:
            sent = headers.get(name)
            if sent is None:
                values[parameter] = None
                continue
            values[parameter], errors = field.validate(sent.decode("latin-1"), values)
            if errors:
                return None
        if self.parts:
            path_params = self.route.matches(scope)[1]["path_params"]
            for parameter, field in self.parts:
                values[parameter], errors = field.validate(path_params[field.alias], values)
                if errors:
                    return None
        scope["path_params"] = path_params
        return values

    def _has_plain_head(self, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
        """Whether no field is there twice, and the body is what it takes, with a length and not encoded."""
        if len(headers) != len(scope["headers"]) or not _ENCODINGS.isdisjoint(headers):
            return False
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX:
            return False
        if self.body is None:
            return int(length) == 0
        return 0 < int(length) <= BODY_BYTES_MAX and headers.get(b"content-type") in _JSON


def _is_plain(route: APIRoute) -> bool:
    takes, body = route.dependant, route.body_field
    others = (
        takes.dependencies, takes.query_params, takes.cookie_params, takes.websocket_param_name,
        takes.http_connection_param_name, takes.response_param_name, takes.background_tasks_param_name,
        takes.security_scopes_param_name, route.max_body_size,
    )  # fmt: skip
    return (
        not any(others)
        and iscoroutinefunction(route.endpoint)
        and _answers_itself(route.endpoint)
        and all(_is_one_line_or_nothing(field) for field in takes.header_params)
        and takes.body_params == ([] if body is None else [body])
        and (body is None or _is_model(body.field_info))
    )


def _answers_itself(endpoint: Callable[..., Any]) -> bool:
    try:
        answer = get_type_hints(endpoint).get("return")
    except NameError:  # a name that only a type checker sees
        return False
    return isinstance(answer, type) and issubclass(answer, Response)


def _is_one_line_or_nothing(field: Any) -> bool:
    """Whether it is a text, or None without the header."""
    info = field.field_info
    return bool(
        not info.is_required()
        and info.default is None
        and info.default_factory is None
        and not info.validate_default
        and info.validation_alias in {None, field.alias}
        and {get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in get_args(info.annotation)}
        == {str, NoneType}
    )


def _is_model(info: Any) -> bool:
    """Whether it is a body of one model."""
    model = isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
    return model and type(info) is params.Body


async def _read(receive: Receive) -> list[Message] | None:
    """The pieces of a body, or its beginning if it is larger than any may be; None when the client went away."""
    pieces: list[Message] = []
    length = 0
    while True:
        piece = await receive()
        if piece["type"] == "http.disconnect":
            return None
        pieces.append(piece)
        length += len(piece.get("body", b""))
        if not piece.get("more_body", False) or length > BODY_BYTES_MAX:
            return pieces


def _judged(takes: tuple[str, Any], pieces: Sequence[Message], values: dict[str, Any]) -> bytes | None:
    """Put the model of a body into the values, and return the body in its shortest form; None if it is no such."""
    if pieces[-1].get("more_body", False):
        return None
    parameter, field = takes
    try:
        parsed = orjson.loads(b"".join([piece.get("body", b"") for piece in pieces]))
        body = orjson.dumps(parsed)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    values[parameter], errors = field.validate(parsed, values)
    return None if errors else body


async def _end(scope: Scope, receive: Receive, send: Send) -> None:
    end = scope[_END]
    if isinstance(end, Exception):
        raise end
    await end(scope, receive, send)


def _scope(method: str, path: str) -> Scope:
    return {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
