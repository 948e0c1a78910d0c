"""Problem details: every error of an application, in one shape."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from shared.errors import BusinessError, TransientError, UnavailableError
from shared.http import openapi, pages, problems
from shared.http.errors import answer_errors
from shared.http.problems import InvalidRequestError, ProblemKind


class TooLateError(BusinessError):
    pass


class MuchTooLateError(TooLateError):
    pass


class InvalidError(Exception):
    """Stands for the framework's own."""

    def __init__(self, *errors: dict[str, Any]) -> None:
        self._errors = list(errors)

    def errors(self) -> list[dict[str, Any]]:
        return self._errors


ERRORS: dict[str, Exception] = {
    "late": TooLateError("it is over"),
    "much-too-late": MuchTooLateError("it is long over"),
    "transient": TransientError("deadlock of secret"),
    "unavailable": UnavailableError("secret host is down"),
    "by-hand": InvalidRequestError(["query", "x"], "give an x"),
    "invalid": InvalidError({"loc": ("body", "a"), "msg": "too long"}, {"loc": ("body", "b"), "msg": "missing"}),
    "no-id": InvalidError({"loc": ("path", "order_id"), "msg": "no UUID"}),
    "bug": ZeroDivisionError("division of secret by zero"),
}


async def fail(request: Request) -> Response:
    raise ERRORS[request.path_params["how"]]


async def fail_late(_request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        raise ZeroDivisionError

    return StreamingResponse(chunks())


async def fine(_request: Request) -> Response:
    return PlainTextResponse("fine")


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = Starlette(
        routes=[
            Route("/fail/{how}", fail),
            Route("/late", fail_late),
            Route("/two", fine, methods=["GET"]),
            Route("/two", fine, methods=["POST"]),
        ]
    )
    answer_errors(app, InvalidError, {TooLateError: ProblemKind(409, "too-late", "Too late", retry_after_s=3)})
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def problem(client: httpx.AsyncClient, how: str) -> tuple[httpx.Response, dict[str, Any]]:
    response = await client.get(f"/fail/{how}")
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == response.status_code
    assert document["instance"] == f"/fail/{how}"
    problems.ProblemDocument.model_validate(document)
    return response, document


@pytest.mark.parametrize("how", ["late", "much-too-late"])
async def test_an_error_of_the_domain_is_answered_by_the_services_own_table(
    client: httpx.AsyncClient, how: str
) -> None:
    response, document = await problem(client, how)
    assert (response.status_code, response.headers["retry-after"]) == (409, "3")
    assert (document["type"], document["title"]) == ("urn:tandem:problem:too-late", "Too late")
    assert document["detail"] == str(ERRORS[how])


@pytest.mark.parametrize("how", ["transient", "unavailable"])
async def test_a_server_that_is_away_is_a_503_that_says_when_to_come_back(
    client: httpx.AsyncClient, how: str
) -> None:
    response, document = await problem(client, how)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "secret" not in json.dumps(document)


async def test_an_invalid_request_lists_what_is_wrong_and_where(client: httpx.AsyncClient) -> None:
    response, document = await problem(client, "invalid")
    assert response.status_code == 422
    assert document["detail"] == "body.a: too long (and 1 more)"
    assert document["errors"] == [
        {"location": ["body", "a"], "message": "too long"},
        {"location": ["body", "b"], "message": "missing"},
    ]


async def test_a_request_found_invalid_by_hand_looks_the_same(client: httpx.AsyncClient) -> None:
    response, document = await problem(client, "by-hand")
    assert response.status_code == 422
    assert document["errors"] == [{"location": ["query", "x"], "message": "give an x"}]


async def test_an_id_in_the_path_that_cannot_be_one_is_not_found(client: httpx.AsyncClient) -> None:
    response, _ = await problem(client, "no-id")
    assert response.status_code == 404


async def test_a_bug_is_a_problem_too_and_logged_and_says_nothing_outside(client: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as lines:
        response, document = await problem(client, "bug")
    assert response.status_code == 500
    assert "secret" not in json.dumps(document)
    assert [(line["log_level"], line["path"]) for line in lines] == [("error", "/fail/bug")]


async def test_a_bug_after_the_answer_began_is_left_to_the_server(client: httpx.AsyncClient) -> None:
    with pytest.raises(ZeroDivisionError):
        await client.get("/late")


async def test_an_unknown_path_is_a_404_problem_with_its_path_quoted(client: httpx.AsyncClient) -> None:
    response = await client.get("/nothing/%00%C3%BC")
    assert response.status_code == 404
    assert response.json()["instance"] == "/nothing/%00%C3%BC"


async def test_a_wrong_method_is_told_all_that_the_path_takes(client: httpx.AsyncClient) -> None:
    response = await client.put("/two")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("position", ["", "4711", "0198c0de-0000-7000-8000-000000000001"])
def test_a_cursor_gives_back_its_position(position: str) -> None:
    assert pages.decode_cursor(pages.encode_cursor(position)) == position


@pytest.mark.parametrize("cursor", ["!", "a b", "\x00", "é", "\ud800", "gA", "A" * 65, "A", "/w+="])
def test_a_cursor_that_nobody_gave_out_is_invalid(cursor: str) -> None:
    with pytest.raises(InvalidRequestError):
        pages.decode_cursor(cursor)


def test_openapi_examples_are_problem_documents() -> None:
    one = ProblemKind(409, "one", "One", example="first")
    two = ProblemKind(409, "two", "Two", retry_after_s=1, example="second")
    responses = openapi.problem_responses(one, two)
    assert "Retry-After" in responses[409]["headers"]
    examples = responses[409]["content"]["application/problem+json"]["examples"]
    assert set(examples) == {"one", "two"}
    for example in examples.values():
        problems.ProblemDocument.model_validate(example["value"])


def test_pydantic_errors_have_the_shape_that_install_expects() -> None:
    class Model(BaseModel):
        x: int

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({})
    assert {"loc", "msg"} <= set(caught.value.errors()[0])
