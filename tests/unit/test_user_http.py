"""What the user service's HTTP accepts and says of itself, without any server behind it."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from services.user.app import SERVICE
from services.user.http import NewUser, create_app
from tests.unit.unserved import unserved

USER = {"email": "ada@example.org", "name": "Ada Lovelace"}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(unserved(SERVICE))


@pytest.fixture
def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize(
    "change",
    [
        {"email": "ada"},
        {"email": "ada@example"},
        {"email": "@example.org"},
        {"email": "ada@example.org\0"},
        {"email": "ada@exa mple.org"},
        {"email": f"{'a' * 65}@example.org"},
        {"email": f"a@{'b' * 60}.{'c' * 60}.{'d' * 60}.{'e' * 60}.{'f' * 60}"},
        {"email": 1},
        {"name": ""},
        {"name": "   "},
        {"name": "\u00a0\u2003\u3000"},
        {"name": "\x85"},
        {"name": "a\0b"},
        {"name": "a\nb"},
        {"name": "x" * 201},
        {"name": None},
        {"admin": True},
    ],
)
async def test_a_bad_user_is_refused_where_it_is_bad(client: httpx.AsyncClient, change: dict[str, Any]) -> None:
    response = await client.post("/users", json=USER | change)
    assert response.status_code == 422
    assert [error["location"] for error in response.json()["errors"]] == [["body", *change]]


@pytest.mark.parametrize("change", [{}, {"name": None}, {"email": ""}, {"status": "active"}, []])
async def test_a_profile_change_says_something_that_can_be(client: httpx.AsyncClient, change: Any) -> None:
    assert (await client.patch(f"/users/{uuid4()}", json=change)).status_code == 422


async def test_an_id_that_is_none_is_not_found(client: httpx.AsyncClient) -> None:
    responses = [
        await client.get("/users/ada"),
        await client.patch("/users/ada", json={"name": "Ada"}),
        await client.post("/users/ada/deactivate"),
    ]
    assert [response.status_code for response in responses] == [404, 404, 404]


async def test_a_profile_change_too_is_asked_for_its_one_key(client: httpx.AsyncClient) -> None:
    for headers in ([("Idempotency-Key", '"k')], [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]):
        response = await client.patch(f"/users/{uuid4()}", json={"name": "Ada"}, headers=headers)
        assert response.json()["errors"][0]["location"] == ["header", "Idempotency-Key"]


async def test_without_a_database_the_answer_is_to_come_back(client: httpx.AsyncClient) -> None:
    response = await client.post("/users", json=USER, headers={"Idempotency-Key": "k"})
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


def test_openapi_shows_an_example_that_would_be_accepted(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    NewUser.model_validate(schemas["NewUser"]["examples"][0])
    assert "default" not in schemas["ProfileChange"]["properties"]["email"]
    assert set(app.openapi()["paths"]) == {"/users", "/users/{user_id}", "/users/{user_id}/deactivate"}


@pytest.mark.parametrize("name", [" ", "\t", "\u00a0\u2003\u3000", "\x85", "", "a\0b"])
def test_the_document_too_says_that_a_name_is_not_blank(app: FastAPI, name: str) -> None:
    pattern = app.openapi()["components"]["schemas"]["NewUser"]["properties"]["name"]["pattern"]
    assert re.search(pattern, name) is None
    assert re.search(pattern, f"{name.strip()} Ada ") is not None or "\0" in name
