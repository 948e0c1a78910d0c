"""What the order service's HTTP accepts and says of itself, without any server behind it."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone
from typing import Any
from uuid import uuid4

import asyncpg.pgproto.pgproto
import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from services.order.app import SERVICE
from services.order.domain import Line, Order, OrderStatus, Verdict
from services.order.http import NewOrder, OrderView, client_ip, create_app, shown
from shared.http import idempotency
from tests.unit.unserved import unserved

SOME_ID = "0192f1a0-7c1e-7d3b-9b0e-1f6c5a4d3b2a"
"""The same in every run: it is part of the tests' names."""
LINE = {"sku": "TEA-250", "quantity": 2, "unit_amount": 1250}
ORDER = {"user_id": str(uuid4()), "currency": "EUR", "lines": [LINE]}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(unserved(SERVICE, "kafka"))


@pytest.fixture
def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize(
    ("change", "location"),
    [
        ({"user_id": "ada"}, ["body", "user_id"]),
        ({"currency": "EUX"}, ["body", "currency"]),
        ({"currency": "eur"}, ["body", "currency"]),
        ({"lines": []}, ["body", "lines"]),
        ({"lines": [LINE] * 101}, ["body", "lines"]),
        ({"lines": [{**LINE, "quantity": 0}]}, ["body", "lines", 0, "quantity"]),
        ({"lines": [{**LINE, "quantity": 1_001}]}, ["body", "lines", 0, "quantity"]),
        ({"lines": [{**LINE, "quantity": "2"}]}, ["body", "lines", 0, "quantity"]),
        ({"lines": [{**LINE, "quantity": True}]}, ["body", "lines", 0, "quantity"]),
        ({"lines": [{**LINE, "unit_amount": -1}]}, ["body", "lines", 0, "unit_amount"]),
        ({"lines": [{**LINE, "unit_amount": 12.5}]}, ["body", "lines", 0, "unit_amount"]),
        ({"lines": [{**LINE, "unit_amount": 10**9 + 1}]}, ["body", "lines", 0, "unit_amount"]),
        ({"lines": [{**LINE, "sku": "a\0b"}]}, ["body", "lines", 0, "sku"]),
        ({"lines": [{**LINE, "sku": ""}]}, ["body", "lines", 0, "sku"]),
        ({"lines": [{**LINE, "sku": "x" * 65}]}, ["body", "lines", 0, "sku"]),
        ({"note": ""}, ["body", "note"]),
        ({"note": "a\0b"}, ["body", "note"]),
        ({"note": "x" * 16_385}, ["body", "note"]),
        ({"discount": 1}, ["body", "discount"]),
    ],
)
async def test_a_bad_order_is_refused_where_it_is_bad(
    client: httpx.AsyncClient, change: dict[str, Any], location: list[str | int]
) -> None:
    response = await client.post("/orders", json=ORDER | change)
    assert response.status_code == 422
    assert [error["location"] for error in response.json()["errors"]] == [location]


TAKEN_KEYS = {
    "k1": "k1",
    "8e03978e-40d5-43dd-bc93-6894a57f9324": "8e03978e-40d5-43dd-bc93-6894a57f9324",
    'a"b': 'a"b',
    "a;b=c,d": "a;b=c,d",
    "x" * 255: "x" * 255,
    '"k1"': "k1",
    '"order 42"': "order 42",
    '" k "': " k ",
    '"a\\"b"': 'a"b',
    '"a\\\\b"': "a\\b",
    '"' + '\\"' * 255 + '"': '"' + '\\"' * 255 + '"',
    '"\\"k1\\""': '"\\"k1\\""',
    '"k1";v=1': "k1",
    '"k1"; a; b="c d";*d=?0;e=:YQ==:;f=-1.5': "k1",
}
"""The field as it is sent, and what the key is stored as."""
REFUSED_KEYS = [
    "", '""', "a b", "x" * 256, '"' + "x" * 256 + '"', "é".encode("latin-1"), '"é"'.encode("latin-1"), b"\x7f",
    '"', '"k1', '"k1"x', '"k1" ;v', '"a\\b"', '"a"b"', '"k1";', '"k1";V=1', '"k1", "k2"', '"k1";a="b', '"a\tb"',
]  # fmt: skip


@pytest.mark.parametrize("key", REFUSED_KEYS)
async def test_an_idempotency_key_is_1_to_255_visible_characters_or_a_string_in_quotes(
    client: httpx.AsyncClient, key: str | bytes
) -> None:
    """RFC 8941, 3.3.3 and 4.2.5; keys without quotes are taken, though the draft knows none."""
    response = await client.post("/orders", json=ORDER, headers=[(b"Idempotency-Key", _bytes(key))])
    assert (response.status_code, response.json()["errors"][0]["location"]) == (422, ["header", "Idempotency-Key"])
    assert "double quotes" in response.json()["detail"]


@pytest.mark.parametrize(("sent", "stored"), TAKEN_KEYS.items())
async def test_a_string_in_quotes_is_the_key_that_they_hold(
    client: httpx.AsyncClient, sent: str, stored: str
) -> None:
    """RFC 8941, 3.1.2, 3.3.3 and 4.2.5."""
    response = await client.post("/orders", json=ORDER, headers={"Idempotency-Key": sent})
    assert response.status_code == 503, "taken; there is no database to keep it in"
    assert idempotency.stored_as(sent) == stored


async def test_a_request_has_one_idempotency_key(client: httpx.AsyncClient) -> None:
    for keys in (("a", "b"), ("a", "a"), ('"a"', "")):
        headers = [("Idempotency-Key", key) for key in keys]
        response = await client.post("/orders", json=ORDER, headers=headers)
        assert response.status_code == 422
        assert response.json()["errors"][0]["location"] == ["header", "Idempotency-Key"]


@pytest.mark.parametrize(
    "key", ['"' + '\\"' * 100_000, "a" * 200_000, '"k"' + ";a" * 100_000 + "!", '"k"' + ";" * 200_000]
)
def test_a_key_of_any_length_is_judged_at_once(key: str) -> None:
    """A quadratic expression would be stopped by the test's own timeout."""
    with pytest.raises(ValueError, match="255"):
        idempotency.check_key(key)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("ascii")


@pytest.mark.parametrize("path", ["/orders/nothing", "/orders/%00", "/orders/%ED%A0%80"])
async def test_an_id_that_is_none_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    for method, suffix in (("GET", ""), ("POST", "/pay"), ("POST", "/cancel")):
        response = await client.request(method, path + suffix)
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "user_id=",
        "user_id=ada",
        f"user_id={SOME_ID}&cursor=garbage",
        f"user_id={SOME_ID}&limit=0",
        f"user_id={SOME_ID}&limit=501",
    ],
)
async def test_a_bad_question_is_a_422(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/orders?{query}")).status_code == 422


async def test_without_a_database_the_answer_is_to_come_back(client: httpx.AsyncClient) -> None:
    for response in (await client.post("/orders", json=ORDER), await client.get(f"/orders/{uuid4()}")):
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.headers["content-type"] == "application/problem+json"


TEXTS = st.text(st.characters(codec="utf-8"))
MOMENTS = st.datetimes(timezones=st.just(UTC)) | st.datetimes(timezones=st.just(timezone(timedelta(hours=-3.5))))
IDS = st.uuids() | st.uuids().map(lambda value: asyncpg.pgproto.pgproto.UUID(value.bytes))
"""Rows have asyncpg's own."""
ORDERS = st.builds(
    Order,
    id=IDS, user_id=IDS, currency=TEXTS, total_amount=st.integers(0, 2**53),
    lines=st.lists(
        st.builds(Line, st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=64),
                  st.integers(1, 1_000), st.integers(0, 10**9)), max_size=3).map(tuple),
    status=st.sampled_from(OrderStatus), version=st.integers(1, 2**31), placed_at=MOMENTS, updated_at=MOMENTS,
    fraud_verdict=st.none() | st.sampled_from(Verdict), note=st.none() | TEXTS,
)  # fmt: skip


@given(ORDERS)
def test_an_order_is_shown_in_the_bytes_of_its_view(order: Order) -> None:
    assert shown(order) == OrderView.model_validate(order).model_dump_json().encode()


def test_openapi_resolves_all_that_it_refers_to_and_has_examples(app: FastAPI) -> None:
    document = app.openapi()
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known
    NewOrder.model_validate(document["components"]["schemas"]["NewOrder"]["examples"][0])
    place = document["paths"]["/orders"]["post"]["responses"]
    assert set(place) == {"201", "409", "413", "415", "422", "500", "503"}
    assert set(place["409"]["content"]["application/problem+json"]["examples"]) == {
        "user-not-known",
        "user-deactivated",
        "idempotency-key-reused",
    }
    assert "Retry-After" in place["409"]["headers"]
    assert set(OrderView.model_fields) == set(document["components"]["schemas"]["OrderView"]["required"])


def references(part: Any) -> list[str]:
    """Every `$ref` in a JSON document."""
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for value in part.values() for found in references(value)]
    return [found for value in part for found in references(value)] if isinstance(part, list) else []


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8::7", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("testclient", None),
        ("", None),
        (None, None),
    ],
)
def test_the_event_says_from_which_ip_address_an_order_came(host: str | None, told: str | None) -> None:
    client = None if host is None else (host, 4711)
    assert client_ip(Request({"type": "http", "client": client, "headers": []})) == told
