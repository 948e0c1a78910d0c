"""What every service's HTTP answers to HEAD, and what it says that a path takes."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from deploy.topology import SERVICES
from tests.unit.unserved import unserved

ID = "0198c0de-0000-7000-8000-000000000001"
METHODS = {"get", "post", "patch", "put", "delete", "head"}


@pytest.fixture(params=sorted(SERVICES), scope="module")
def app(request: pytest.FixtureRequest) -> FastAPI:
    service = import_module(f"services.{request.param}.app").SERVICE
    made: FastAPI = import_module(f"services.{request.param}.http").create_app(unserved(service))
    return made


@pytest.fixture
def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def operations(app: FastAPI) -> dict[str, set[str]]:
    """The methods of each path, as the document has them."""
    paths: dict[str, Any] = app.openapi()["paths"]
    return {path: METHODS & set(item) for path, item in paths.items()}


async def test_head_is_answered_wherever_get_is_with_its_status_and_headers(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    """RFC 9110, 9.1 and 9.3.2. What needs a database has none here and is a 503; the query is refused before."""
    readable = [path for path, methods in operations(app).items() if "get" in methods]
    assert readable
    for path in (*readable, "/docs", "/openapi.json", "/docs/files/favicon.png"):
        for query in ("", f"?user_id={ID}", "?limit=x"):
            url = path.replace("{user_id}", ID).replace("{order_id}", ID).replace("{redrive_id}", ID)
            url = url.replace("{letter_id}", ID) + query
            read, head = await client.get(url), await client.head(url)
            assert read.status_code != 405, url
            assert (head.status_code, dict(head.headers)) == (read.status_code, dict(read.headers)), url


async def test_head_is_told_of_and_other_methods_are_refused(app: FastAPI, client: httpx.AsyncClient) -> None:
    for path, methods in operations(app).items():
        url = re.sub(r"\{\w+_id(:uuid)?\}", ID, path).replace("{", "").replace("}", "")
        refused = await client.request("DELETE" if "delete" not in methods else "PATCH", url)
        expected = {method.upper() for method in methods} | ({"HEAD"} if "get" in methods else set())
        assert (refused.status_code, refused.headers["allow"]) == (405, ", ".join(sorted(expected))), path


async def test_head_is_no_way_to_change_anything(app: FastAPI, client: httpx.AsyncClient) -> None:
    for path, methods in operations(app).items():
        if "get" not in methods:
            url = re.sub(r"\{\w+_id(:uuid)?\}", ID, path)
            assert (await client.head(url)).status_code == 405, path


def test_the_document_has_each_operation_once(app: FastAPI) -> None:
    """HEAD is what HTTP asks of every GET; the document would only say everything twice."""
    paths = app.openapi()["paths"].values()
    ids = [item[method]["operationId"] for item in paths for method in METHODS & set(item)]
    assert len(ids) == len(set(ids))
    assert not any("head" in methods for methods in operations(app).values())
