"""Request bodies: what is let through, and what is refused before anything happens."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.http.errors import answer_errors
from shared.http.problems import BODY_BYTES_MAX

JSON = {"content-type": "application/json"}


class Application:
    """Answers with the body that its route saw; counts how often the route ran."""

    def __init__(self) -> None:
        self.calls = 0
        app = Starlette(
            routes=[Route("/echo", self.echo, methods=["POST"]), Route("/deaf", self.deaf, methods=["POST"])]
        )
        answer_errors(app, LookupError, {})
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")

    async def echo(self, request: Request) -> Response:
        self.calls += 1
        return Response(await request.body())

    async def deaf(self, _request: Request) -> Response:
        self.calls += 1
        return Response(b"done")


@pytest.fixture
def application() -> Application:
    return Application()


async def chunks(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * size


@pytest.mark.parametrize("path", ["/echo", "/deaf"])
async def test_a_body_that_says_it_is_too_long_is_refused(application: Application, path: str) -> None:
    response = await application.client.post(path, content=b" " * (BODY_BYTES_MAX + 1), headers=JSON)
    assert (response.status_code, response.json()["title"], application.calls) == (413, "Content Too Large", 0)


@pytest.mark.parametrize("path", ["/echo", "/deaf"])
async def test_a_body_that_turns_out_too_long_is_refused_while_it_arrives(
    application: Application, path: str
) -> None:
    pulled = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal pulled
        while True:
            pulled += 1
            assert pulled < 1_000, "the whole of an endless body was read"
            yield b" " * 65_536

    response = await application.client.post(path, content=endless(), headers=JSON)
    assert (response.status_code, application.calls) == (413, 0)


async def test_the_longest_body_is_let_through(application: Application) -> None:
    body = b'"' + b"x" * (BODY_BYTES_MAX - 2) + b'"'
    response = await application.client.post("/echo", content=body, headers=JSON)
    assert response.content == body


async def test_chunks_are_put_together(application: Application) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"a":'
        yield b" 1"
        yield b"}"

    response = await application.client.post("/echo", content=parts(), headers=JSON)
    assert response.content == b'{"a":1}'


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/jsonx"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json", "content-encoding": "identity, gzip"},
        {"content-type": 'application/json; profile="a;b"; charset=latin-1'},
        {"content-type": 'application/json; charset="latin-1"; charset=utf-8'},
        {"content-type": "; charset=utf-8"},
        {"content-type": 'application/json"; charset=utf-8'},
    ],
)
async def test_what_is_not_json_in_utf8_is_a_415(application: Application, headers: dict[str, str]) -> None:
    response = await application.client.post("/echo", content=b"{}", headers=headers)
    assert (response.status_code, application.calls) == (415, 0)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "Application/JSON ; charset=UTF-8",
        'application/json;charset="utf-8"',
        'application/json; charset=utf-8; profile="x"',
        "application/json;charset=UTF-8;",
        "application/json; ; charset=utf-8 ; ",
        "application/json; charset=utf-8;odata.metadata=minimal",
        "application/json; x-charset=latin1",
        "application/json; odata.metadata=minimal; charset=utf-8",
        'application/json; profile="a; charset=latin-1"',
        'application/json; profile="a\\"; charset=latin-1"',
        "application/json; charset",
        "application/json; charset=",
        "application/json;\tcharset=utf-8",
    ],
)
async def test_json_may_be_called_by_any_of_its_spellings(application: Application, media_type: str) -> None:
    """RFC 9110, 8.3.1 and 5.6.6, and what frameworks of other languages send by default."""
    response = await application.client.post("/echo", content=b"{}", headers={"content-type": media_type})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("types", "status"),
    [(["application/json"] * 2, 200), (["application/json", "text/plain"], 415), (["text/plain"] * 2, 415)],
)
async def test_a_type_that_is_said_twice_must_be_the_same(
    application: Application, types: list[str], status: int
) -> None:
    headers = [("content-type", media_type) for media_type in types]
    assert (await application.client.post("/echo", content=b"{}", headers=headers)).status_code == status


@pytest.mark.parametrize("parameter", ['; a="', ";", '; a="\\', ";a=b", "; ", " ;\t"])
async def test_a_type_with_many_parameters_is_read_once(application: Application, parameter: str) -> None:
    """A quadratic reader would be stopped by the test's own timeout."""
    media_type = "application/json" + parameter * (300_000 // len(parameter)) + "!"
    response = await application.client.post("/echo", content=b"{}", headers={"content-type": media_type})
    assert response.status_code == 200


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/x-www-form-urlencoded"}])
async def test_no_body_needs_no_type(application: Application, headers: dict[str, str]) -> None:
    response = await application.client.post("/deaf", content=b"", headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/echo", "/deaf"])
@pytest.mark.parametrize("headers", [{}, JSON, {"content-type": "text/plain"}, {"content-encoding": "gzip"}])
@pytest.mark.parametrize("parts", [[], [b""], [b"", b"", b""]])
async def test_chunks_of_nothing_are_no_body(
    application: Application, path: str, headers: dict[str, str], parts: list[bytes]
) -> None:
    """As proxies send on what has no body. Source: httpwg's tests of chunked coding, RFC 9112, 6 and 7.1."""

    async def nothing() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    response = await application.client.post(path, content=nothing(), headers=headers)
    assert (response.status_code, application.calls) == (200, 1)
    assert response.content == {"/echo": b"", "/deaf": b"done"}[path]


@pytest.mark.parametrize(("headers", "status"), [({}, 415), (JSON, 200), ({"content-type": "text/plain"}, 415)])
async def test_chunks_after_empty_ones_are_a_body(
    application: Application, headers: dict[str, str], status: int
) -> None:
    async def late() -> AsyncIterator[bytes]:
        yield b""
        yield b"{"
        yield b""
        yield b"}"

    response = await application.client.post("/echo", content=late(), headers=headers)
    assert (response.status_code, application.calls) == (status, int(status == 200))


@pytest.mark.parametrize("length", ["0", "00", "000000"])
async def test_a_length_of_nothing_may_have_many_zeros(application: Application, length: str) -> None:
    """RFC 9110, 8.6: one or more digits."""
    response = await application.client.post("/deaf", headers={"content-length": length})
    assert response.status_code == 200


async def test_a_byte_order_mark_is_refused_by_its_name(application: Application) -> None:
    """RFC 8259, 8.1: a sender must not add one, a reader may ignore it or refuse it."""
    response = await application.client.post("/echo", content=b"\xef\xbb\xbf{}", headers=JSON)
    assert response.status_code == 422
    assert "byte order mark" in response.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nan",
        b"NaN",
        b"[1e999]",
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b'"\xff"',
        b"1" * 5_000,
        b"[" * 300 + b"]" * 300,
        b"[" * 400_000,
        b'{"secret": tru}',
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-16-le"),
        '{"a": 1}'.encode("utf-32"),
    ],
)
async def test_what_some_parsers_take_for_json_is_a_422(application: Application, body: bytes) -> None:
    response = await application.client.post("/echo", content=body, headers=JSON)
    assert (response.status_code, application.calls) == (422, 0)
    assert response.json()["errors"][0]["location"] == ["body"]
    assert "secret" not in response.text


async def test_equal_json_is_seen_as_equal_bytes(application: Application) -> None:
    seen = {
        (await application.client.post("/echo", content=body, headers=JSON)).content
        for body in (b'{"a": 1, "b": "\\u00e9"}', b'{"a":1,"b":"\xc3\xa9"}', b'\n{"a" :1 ,"b": "\xc3\xa9" }\n')
    }
    assert len(seen) == 1


@given(st.binary(max_size=200))
async def test_no_bytes_at_all_are_an_unexpected_error(body: bytes) -> None:
    application = Application()
    response = await application.client.post("/echo", content=body, headers=JSON)
    assert response.status_code in {200, 422}
