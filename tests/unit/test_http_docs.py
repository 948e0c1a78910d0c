"""The page /docs of every service works without a network: it loads nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import import_module

import httpx
import pytest

from deploy.topology import SERVICES
from tests.unit.unserved import unserved

TYPES = {".js": "text/javascript", ".css": "text/css", ".png": "image/png", ".json": "application/json"}


@pytest.fixture(params=sorted(SERVICES))
def client(request: pytest.FixtureRequest) -> httpx.AsyncClient:
    service = import_module(f"services.{request.param}.app").SERVICE
    app = import_module(f"services.{request.param}.http").create_app(unserved(service))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


class Addresses(HTMLParser):
    """What a page links to or loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in {"src", "href"} and value is not None]


async def test_the_page_loads_nothing_from_elsewhere_and_all_that_it_loads_is_there(
    client: httpx.AsyncClient,
) -> None:
    page = await client.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert re.findall(r"https?:|[\"'(]//", page.text) == []
    [document] = re.findall(r"\burl: *['\"]([^'\"]+)['\"]", page.text)
    loaded = [*Addresses(page.text).found, document]
    assert {address.rpartition(".")[2] for address in loaded} == {"js", "css", "png", "json"}
    for address in loaded:
        answer = await client.get(address)
        assert (answer.status_code, answer.content != b"") == (200, True), address
        assert answer.headers["content-type"].startswith(TYPES["." + address.rpartition(".")[2]])


async def test_the_style_sheet_loads_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    sheets = [a for a in Addresses((await client.get("/docs")).text).found if a.endswith(".css")]
    assert sheets
    for sheet in sheets:
        text = (await client.get(sheet)).text
        assert "@import" not in text
        assert {url.partition(":")[0] for url in re.findall(r"url\(\s*['\"]?([^'\")]*)", text)} == {"data"}


async def test_a_browser_may_ask_nobody_else(client: httpx.AsyncClient) -> None:
    policy = (await client.get("/docs")).headers["content-security-policy"]
    allowed = {word for directive in policy.split(";") for word in directive.split()[1:]}
    assert "default-src 'self'" in policy
    assert allowed == {"'self'", "'unsafe-inline'", "data:"}


async def test_there_is_no_other_page(client: httpx.AsyncClient) -> None:
    assert (await client.get("/redoc")).status_code == 404
