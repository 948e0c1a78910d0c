"""The short way of a request: it answers what the ordinary way answers, and is taken where it can be."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from importlib import import_module
from typing import Annotated, Any
from uuid import UUID

import pytest
import structlog
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import JSONResponse, StreamingResponse
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.topology import SERVICES
from services.order.app import SERVICE
from shared.errors import BusinessError, TransientError
from shared.http.application import IdempotencyKey, service_app
from shared.http.problems import InvalidRequestError, ProblemKind
from shared.http.short_way import ShortWay
from tests.unit.unserved import unserved

ID = "0198c0de-0000-7000-8000-000000000001"
THING = {"id": ID, "name": "tea", "count": 2, "ratio": 0.5}


class TooLateError(BusinessError):
    pass


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: UUID
    name: Annotated[str, AfterValidator(lambda name: name.strip())] = Field(min_length=1)
    count: int = Field(strict=True, ge=0)
    ratio: float | Decimal | None = None
    tags: tuple[str, ...] | set[int] = ()


class Gate:
    closed = False


@dataclass
class Way:
    """An application with one of the two ways, and which of its requests went the ordinary one."""

    app: FastAPI
    ordinary: ASGIApp
    gate: Any
    ordinarily: list[str] = field(default_factory=list)

    async def count(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.ordinarily.append(scope["path"])
        await self.ordinary(scope, receive, send)


ERRORS: dict[str, Callable[[], Exception]] = {
    "late": lambda: TooLateError("it is over"),
    "invalid": lambda: InvalidRequestError(["body", "name"], "not this one"),
    "transient": lambda: TransientError("deadlock"),
    "teapot": lambda: HTTPException(418, "a teapot", {"x-tea": "green"}),
    "bug": lambda: ZeroDivisionError("secret"),
}


def an_app(gate: Any) -> FastAPI:
    app = service_app(
        title="Things",
        description="Of a test.",
        telemetry=unserved(SERVICE).telemetry,
        errors={TooLateError: ProblemKind(409, "too-late", "Too late", retry_after_s=3)},
        outbox_gate=gate,
    )

    @app.get("/things")
    async def read() -> Thing:
        return Thing.model_validate(THING)

    @app.post("/things", status_code=201, response_model=Thing)
    async def add(new: Thing, request: Request, key: IdempotencyKey = None) -> Response:
        if new.name in ERRORS:
            raise ERRORS[new.name]()
        return await answer(new.name, request, repr((new, key)))

    @app.post("/things/{thing_id}/close")
    async def close(thing_id: UUID, request: Request, key: IdempotencyKey = None) -> Response:
        return await answer("", request, repr((thing_id, key)))

    @app.post("/kinds/{kind_id:uuid}")
    async def of_kind(kind_id: UUID, new: Thing) -> Response:
        return Response(repr((kind_id, new)))

    @app.post("/{first}/early")
    async def early(first: str) -> Response:
        return Response("early " + first)

    @app.post("/{first}/shown")
    async def shown(first: str) -> dict[str, str]:
        return {"shown": first}

    @app.post("/{second}/{shown}")
    async def shown_later(second: str, shown: str) -> Response:
        return Response(second + shown)

    @app.post("/things/shown")
    async def hidden() -> Response:
        return Response("hidden")

    @app.post("/things/early")
    async def shadowed() -> Response:
        return Response("late")

    @app.post("/things/{second}")
    async def any_thing(second: str) -> Response:
        return Response(second)

    @app.post("/query")
    async def query(new: Thing, how: Annotated[str, Query()] = "") -> Response:
        return Response(how + new.name)

    @app.post("/depends")
    async def depends(new: Thing, who: Annotated[str, Depends(lambda: "somebody")]) -> Response:
        return Response(who + new.name)

    @app.post("/model")
    async def model(new: Thing) -> Thing:
        return new

    @app.post("/optional")
    async def optional(new: Thing | None = None) -> Response:
        return Response(repr(new))

    @app.post("/pair")
    async def pair(new: Thing, other: Thing) -> Response:
        return Response(repr((new, other)))

    return app


async def answer(how: str, request: Request, seen: str) -> Response:
    """A response that says all that its endpoint saw."""
    if how.startswith("stream"):
        return StreamingResponse(parts(how), headers={"x-how": how})
    if how == "json":
        return JSONResponse({"seen": seen}, 202)
    if how == "task":
        return Response("task", background=BackgroundTask(request.scope["state"].update, done=True))
    if how == "header":
        return Response(headers={"location": "/things/1", "content-length": "1"}, content=b"12")
    told = [
        seen, request.method, str(request.url), request.headers.items(), dict(request.path_params),
        (await request.body()).decode(), request.client, request.scope["route"].path, request.app.title,
        str(request.url_for("read")), request.scope["endpoint"].__name__,
    ]  # fmt: skip
    return Response(json.dumps(told), 201, {"location": f"/things/{ID}"}, "application/json")


async def parts(how: str) -> AsyncIterator[bytes]:
    yield b"one"
    if how == "stream-breaks":
        raise LookupError("broken")
    if how == "stream-late":
        raise TooLateError("too late for another answer")
    yield b"two"


@pytest.fixture(scope="module")
def ways() -> tuple[Way, Way]:
    """The short way, and the ordinary one alone."""
    return made(short=True), made(short=False)


def made(*, short: bool) -> Way:
    gate = Gate()
    app = an_app(gate)
    way = Way(app, FastAPI.build_middleware_stack(app), gate)
    app.middleware_stack = ShortWay(app, way.count, way.gate) if short else way.ordinary
    return way


async def ask(
    way: Way, path: str, body: bytes | list[bytes] | None, headers: list[tuple[bytes, bytes]], **given: Any
) -> list[Any]:
    """All that is sent, raised, logged, and left in the state of the request."""
    pieces = body if isinstance(body, list) else [body or b""]
    waiting: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": place < len(pieces)}
        for place, piece in enumerate(pieces, 1)
    ]
    sent: list[Any] = []

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body") == b"12":
            raise RuntimeError("Response content longer than Content-Length")
        sent.append({**message, "headers": sorted(message.get("headers", []))})

    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
        "raw_path": path.encode(), "root_path": "", "query_string": b"a=1", "scheme": "http", "state": {},
        "server": ("127.0.0.1", 8001), "client": ("192.0.2.7", 4711), "headers": [(b"host", b"there"), *headers],
        **given,
    }  # fmt: skip
    with structlog.testing.capture_logs() as logs:
        try:
            await way.app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same of both
            sent.append(repr(error))
    return [*sent, [{**entry, "exc_info": bool(entry.get("exc_info"))} for entry in logs], scope["state"]]


def said(body: bytes, *more: tuple[bytes, bytes], media_type: bytes = b"application/json") -> dict[str, Any]:
    """A request with a body."""
    length = str(len(body)).encode()
    return {"body": body, "headers": [(b"content-type", media_type), (b"content-length", length), *more]}


def thing(**change: Any) -> bytes:
    return json.dumps(THING | change).encode()


GOOD = thing()
DEEP = b'{"id":' + b"[" * 300 + b"]" * 300 + b"}"
CLOSE = f"/things/{ID}/close"
KEY = (b"idempotency-key", b"k1")
ANSWERS = ("stream", "stream-breaks", "stream-late", "json", "task", "header")
SHORT: dict[str, dict[str, Any]] = {
    "good": said(GOOD),
    "with blanks": said(b"\n " + GOOD + b" "),
    "of utf-8": said(GOOD, media_type=b"application/json; charset=utf-8"),
    "in pieces": {**said(GOOD), "body": [GOOD[:9], GOOD[9:]]},
    "in pieces of nothing": {**said(GOOD), "body": [b"", GOOD, b""]},
    "with a key": said(GOOD, KEY),
    "with a key in quotes": said(GOOD, (b"idempotency-key", b'"k 1"; a=1')),
    "with other headers": said(GOOD, (b"accept", b"*/*"), (b"x-forwarded-for", b"10.0.0.1"), (b"cookie", b"a=b")),
    "a member twice": said(GOOD[:-1] + b', "name": "other"}'),
    "a count that is a large number": said(thing(count=2**62)),
    "letters of everywhere": said(thing(name="çay \u2028 \U0001f375")),
    "close": {"path": CLOSE, "body": None, "headers": []},
    "close with a length of nothing": {"path": CLOSE, "body": b"", "headers": [(b"content-length", b"0")]},
    "close with a key": {"path": CLOSE, "body": None, "headers": [KEY]},
    "close in capitals": {"path": f"/things/{ID.upper()}/close", "headers": []},
    "a converted part": {**said(GOOD), "path": f"/kinds/{ID}"},
    "any": {"path": "/things/x%20y", "body": None, "headers": []},
    "the first of two routes": {"path": "/things/early", "body": None, "headers": []},
    "a line behind": {**said(GOOD), "path": "/things\n"},
    "the client went away": {**said(GOOD), "body": []},
    **{name: said(thing(name=name)) for name in ERRORS},
    **{name: said(thing(name=name)) for name in ANSWERS},
}
"""What goes the short way."""
ORDINARY: dict[str, dict[str, Any]] = {
    "a length that is none": {"body": GOOD, "headers": [(b"content-type", b"application/json")]},
    "a length of another alphabet": {**said(GOOD), "headers": [(b"content-length", "²".encode("latin-1"))]},
    "chunks": {
        "body": [GOOD[:9], GOOD[9:]],
        "headers": [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")],
    },
    "bad pieces": {**said(GOOD), "body": [GOOD[:9], GOOD[8:]]},
    "pieces without end": {**said(GOOD), "body": [b" " * 600_000] * 3},
    "too long": said(b" " * 1_000_001),
    "longer than all": said(b"", (b"content-length", b"9" * 30)),
    "encoded": said(GOOD, (b"content-encoding", b"gzip")),
    "another type": said(GOOD, media_type=b"text/plain"),
    "a type in capitals": said(GOOD, media_type=b"Application/JSON"),
    "no type": {"body": GOOD, "headers": [(b"content-length", str(len(GOOD)).encode())]},
    "a header twice": said(GOOD, (b"accept", b"a"), (b"accept", b"b")),
    "a key twice": said(GOOD, KEY, KEY),
    "no key": said(GOOD, (b"idempotency-key", b"")),
    "a key that is none": said(GOOD, (b"idempotency-key", b"a b")),
    "not json": said(b"{"),
    "not a number": said(GOOD.replace(b"0.5", b"NaN")),
    "half a letter": said(GOOD.replace(b"tea", b"\\ud800")),
    "deep": said(DEEP),
    "null": said(b"null"),
    "a list": said(b"[]"),
    "nothing": {"body": b"", "headers": [(b"content-type", b"application/json")]},
    "a thing without": said(b"{}"),
    "a thing with more": said(thing(more=1)),
    "a bad thing": said(thing(count="2", id="x")),
    "a blank name": said(thing(name="")),
    "close with a body": {**said(GOOD), "path": CLOSE},
    "close nothing": {"path": "/things/nothing/close", "body": None, "headers": []},
    "close with a bad key": {"path": CLOSE, "body": None, "headers": [(b"idempotency-key", b"\xff")]},
    "a part that is not converted": {**said(GOOD), "path": "/kinds/x"},
    "shown": {"path": "/things/shown", "body": None, "headers": []},
    "shown of any": {"path": "/other/shown", "body": None, "headers": []},
    "under a root": {**said(GOOD), "path": "/under/things", "root_path": "/under"},
    "a path that only begins like the root": {"path": CLOSE, "root_path": "/things", "body": None, "headers": []},
    "read": {"method": "GET", "headers": []},
    "head": {"method": "HEAD", "headers": []},
    "another method": {"method": "PATCH", "headers": []},
    "no route": {**said(GOOD), "path": "/nothing"},
    "the docs": {"path": "/docs", "method": "GET", "headers": []},
    **{path: {**said(GOOD), "path": f"/{path}"} for path in ("query", "depends", "model", "optional")},
    "pair": {**said(b'{"new": %b, "other": %b}' % (GOOD, GOOD)), "path": "/pair"},
}
"""What goes the ordinary way."""


async def asked(way: Way, request: dict[str, Any]) -> list[Any]:
    return await ask(way, **{"path": "/things", "body": None, **request})


async def ordinarily_of_equal_answers(ways: tuple[Way, Way], request: dict[str, Any]) -> int:
    """Both ways answer the same; how often the short one asked the ordinary one for it."""
    short, ordinary = ways
    short.ordinarily.clear()
    expected = await asked(ordinary, request)
    assert await asked(short, request) == expected
    return len(short.ordinarily)


@pytest.mark.parametrize("kind", SHORT)
async def test_the_short_way_answers_what_the_ordinary_one_does(ways: tuple[Way, Way], kind: str) -> None:
    assert await ordinarily_of_equal_answers(ways, SHORT[kind]) == 0


@pytest.mark.parametrize("kind", ORDINARY)
async def test_what_is_not_plain_goes_the_ordinary_way_untouched(ways: tuple[Way, Way], kind: str) -> None:
    assert await ordinarily_of_equal_answers(ways, ORDINARY[kind]) == 1


async def test_while_the_gate_is_closed_the_ordinary_way_says_so(ways: tuple[Way, Way]) -> None:
    for way in ways:
        way.gate.closed = True
    try:
        answers = [await asked(way, SHORT["good"]) for way in ways]
    finally:
        for way in ways:
            way.gate.closed = False
    assert answers[0] == answers[1]
    assert answers[0][0]["status"] == 503


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([ID, "tea", 2])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner))
THINGS = st.fixed_dictionaries(
    {"id": st.just(ID) | VALUES, "name": st.just("tea") | VALUES, "count": st.integers() | VALUES},
    optional={"ratio": VALUES, "tags": VALUES, "more": VALUES},
)


@given(st.binary(max_size=60) | st.builds(lambda value: json.dumps(value).encode(), VALUES | THINGS))
async def test_both_ways_judge_every_body_alike(ways: tuple[Way, Way], body: bytes) -> None:
    short, ordinary = ways
    assert await asked(short, said(body)) == await asked(ordinary, said(body))


async def test_placing_an_order_goes_the_short_way() -> None:
    app = import_module("services.order.http").create_app(unserved(SERVICE))
    app.middleware_stack = app.build_middleware_stack()
    spans = app.middleware_stack
    assert isinstance(spans._app, ShortWay)

    async def ordinary(scope: Scope, receive: Receive, send: Send) -> None:
        pytest.fail("the ordinary way")

    spans._app._ordinary = ordinary
    order = {"user_id": ID, "currency": "EUR", "lines": [{"sku": "TEA-250", "quantity": 2, "unit_amount": 1250}]}
    paying: dict[str, Any] = {"body": None, "headers": [], "path": f"/orders/{ID}/pay"}
    for request in (said(json.dumps(order).encode()), paying):
        [start, *_] = await ask(Way(app, ordinary, None), **{"path": "/orders", **request})
        assert start["status"] == 503, "there is no database to keep it in"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_an_application_with_layers_of_its_own_has_no_short_way_past_them(name: str) -> None:
    service = import_module(f"services.{name}.app").SERVICE
    app = import_module(f"services.{name}.http").create_app(unserved(service))
    assert isinstance(app.build_middleware_stack()._app, ShortWay) == (name != "wallet")
