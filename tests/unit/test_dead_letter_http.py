"""What the dead-letter service's HTTP accepts, without any server behind it; and payloads that are readable."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dead_letter.app import SERVICE
from services.dead_letter.http import create_app
from shared.http import pages
from shared.http.readable import readable
from tests.unit.unserved import unserved

SOME_ID = "0192f1a0-7c1e-7d3b-9b0e-1f6c5a4d3b2a"
"""The same in every run: it is part of the tests' names."""


@pytest.fixture(scope="module")
def client() -> httpx.AsyncClient:
    app = create_app(unserved(SERVICE))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize(
    "query",
    [
        "state=unknown",
        "type=",
        "type=%00",
        "surprise=1",
        "from=yesterday",
        "from=2026-11-22T12:00:00",
        "to=0001-01-01T00:00:00Z",
        "cursor=garbage",
        f"cursor={pages.encode_cursor('0')}",
        "limit=501",
    ],
)
async def test_a_bad_question_is_a_422(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"/dead-letters?{query}")
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("redrive", {"rate_per_s": 0}),
        ("redrive", {"rate_per_s": 1e9}),
        ("redrive", {"filter": {"state": "gone"}}),
        ("redrive", {"filter": {"whatever": 1}}),
        ("redrive", {"dry_run": "perhaps"}),
        (f"{SOME_ID}/discard", {}),
        (f"{SOME_ID}/discard", {"reason": ""}),
        (f"{SOME_ID}/discard", {"reason": "a\x00b"}),
    ],
)
async def test_a_bad_command_is_a_422(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    response = await client.post(f"/dead-letters/{path}", json=body)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize("path", ["nobody", "redrives/nobody"])
async def test_what_is_no_id_names_nothing(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(f"/dead-letters/{path}")).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["", "/groups", f"/{SOME_ID}", f"/redrives/{SOME_ID}", "?state=parked&from=2026-11-22T12:00:00Z&type=a.b"],
)
async def test_a_good_question_without_a_database_is_a_503(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(f"/dead-letters{path}")).status_code == 503


@pytest.mark.parametrize(
    ("body", "form", "value"),
    [
        (b'{"a": [1, null]}', "json", {"a": [1, None]}),
        (b"no json", "text", "no json"),
        (b"\xff\xfe", "base64", "//4="),
        (b"[" * 300 + b"]" * 300, "text", "[" * 300 + "]" * 300),
        (b'"' + b"x" * 1_000_000 + b'"', "text", '"' + "x" * 999_999),
        (b"", "text", ""),
    ],
)
def test_a_payload_is_shown_in_the_most_readable_form(body: bytes, form: str, value: object) -> None:
    shown = readable(body)
    assert (shown.form, shown.value, shown.bytes) == (form, value, len(body))
    assert shown.complete == (len(body) <= 1_000_000)


@given(st.binary(max_size=500))
def test_any_payload_can_be_shown(body: bytes) -> None:
    assert readable(body).model_dump_json()
