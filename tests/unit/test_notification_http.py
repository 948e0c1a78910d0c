"""What the notification service's HTTP accepts, without any server behind it."""

from __future__ import annotations

import httpx
import pytest

from services.notification.app import SERVICE
from services.notification.http import create_app
from shared.http import pages
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
        "",
        "user_id=&order_id=",
        "user_id=ada",
        f"user_id={SOME_ID}&cursor=garbage",
        f"user_id={SOME_ID}&cursor={pages.encode_cursor('0')}",
        f"user_id={SOME_ID}&cursor={pages.encode_cursor('-1')}",
        f"user_id={SOME_ID}&cursor={pages.encode_cursor(str(2**63))}",
        f"user_id={SOME_ID}&limit=501",
    ],
)
async def test_a_bad_question_is_a_422(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"/notifications?{query}")
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize(
    "query", [f"user_id={SOME_ID}", f"user_id=&order_id={SOME_ID}", f"order_id={SOME_ID}&cursor="]
)
async def test_a_good_question_without_a_database_is_a_503(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/notifications?{query}")).status_code == 503
