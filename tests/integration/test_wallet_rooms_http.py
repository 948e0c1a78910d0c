"""Distributions over HTTP, on a real PostgreSQL: who is believed to be whom, and what is refused at once.

The broker is nowhere: what is asked of the worker ends with 503, and with nothing done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from deploy.native import Runtime
from services.wallet.app import SERVICE
from services.wallet.domain.sign_in import Who
from services.wallet.handlers import sign_in
from services.wallet.handlers.sign_in import who_are
from services.wallet.http import create_app
from tests.integration.wallets import PASSWORD, ROOM, Wallet, opened_wallet
from tests.unit.unserved import unserved

GATEWAY_TOKEN = "of the chat's gateway"
NONE: dict[str, str] = {}
KEY = {"idempotency-key": "k"}
NOWHERE = {"token": "22222222"}
NEW = {"amount": 100, "people": 5}


@dataclass
class Room:
    """A wallet behind its HTTP, whose gateway is believed; Ada has 1,000, and may sign in."""

    wallet: Wallet
    http: httpx.AsyncClient
    ada: UUID

    async def ask(
        self,
        method: str,
        path: str,
        user: UUID | None = None,
        body: object = None,
        headers: Mapping[str, str] = NONE,
    ) -> httpx.Response:
        """As the gateway asks for a user."""
        told = {"x-gateway-token": GATEWAY_TOKEN, "x-user-id": str(user or self.ada), "x-room-id": ROOM} | dict(
            headers
        )
        return await self.http.request(method, path, json=body, headers=told)


@pytest.fixture
async def room(servers: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    async with opened_wallet(servers, monkeypatch) as wallet:
        parts = unserved(SERVICE)
        told = {"wallet_gateway_token": SecretStr(GATEWAY_TOKEN)}
        app = create_app(replace(parts, units=wallet.units, settings=parts.settings.model_copy(update=told)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet") as http:
            ada = await wallet.user()
            await wallet.can_sign_in(ada, "ada")
            yield Room(wallet, http, ada)


def kind_of(answer: httpx.Response) -> str:
    return str(answer.json()["type"].rpartition(":")[2])


async def test_a_distribution_is_opened_once_for_a_key_and_shown_to_its_giver_alone(room: Room) -> None:
    assert kind_of(await room.ask("POST", "/distributions", body=NEW)) == "account-not-said"
    account = await room.wallet.account(1_000, room.ada)
    answers = [
        await room.ask("POST", "/distributions", body=NEW | {"split": "even"}, headers=KEY) for _ in range(2)
    ]
    opened = answers[0]
    assert [one.status_code for one in answers] == [201, 201]
    assert opened.json() == answers[1].json()
    assert opened.headers["location"] == f"/distributions/{opened.json()['token']}"
    assert (opened.json()["account_id"], opened.json()["taken"]) == (str(account), 0)
    shown = await room.ask("GET", opened.headers["location"])
    assert shown.json() == opened.json()
    other = await room.wallet.user()
    for answer in (
        await room.ask("GET", opened.headers["location"], other),
        await room.ask("GET", opened.headers["location"], headers={"x-room-id": "another"}),
        await room.ask("GET", "/distributions/22222222"),
        await room.ask("GET", "/distributions/no-token"),
    ):
        assert answer.status_code == 404
    await room.wallet.account(1_000, room.ada)
    assert kind_of(await room.ask("POST", "/distributions", body=NEW)) == "account-not-said"
    theirs = str(await room.wallet.account(1_000))
    assert (
        kind_of(await room.ask("POST", "/distributions", body=NEW | {"account_id": theirs})) == "account-not-found"
    )
    assert kind_of(await room.ask("POST", "/distributions", body={"amount": 2, "people": 3})) == "amount-too-small"
    assert await room.wallet.broken_rules() == []


async def test_headers_that_anyone_can_set_are_believed_of_who_is_signed_in_or_of_the_gateway(room: Room) -> None:
    account = await room.wallet.account(1_000, room.ada)
    body = NEW | {"account_id": str(account)}
    mine = {"x-user-id": str(room.ada), "x-room-id": ROOM}
    for headers in (mine, mine | {"x-gateway-token": "guessed"}, mine | {"cookie": "tandem_session=made-up"}):
        for method, path in (
            ("POST", "/distributions"),
            ("GET", "/distributions/22222222"),
            ("POST", "/receive"),
            ("GET", f"/receipts/{uuid4()}"),
        ):
            told = None if method == "GET" else NOWHERE if path == "/receive" else body
            answer = await room.http.request(method, path, json=told, headers=headers)
            assert (answer.status_code, kind_of(answer)) == (401, "not-signed-in"), (headers, path)
    gateways = {"x-gateway-token": GATEWAY_TOKEN, "x-room-id": ROOM}
    assert (await room.http.post("/distributions", json=body, headers=gateways)).status_code == 401
    await room.http.post("/session", json={"name": "ada", "password": PASSWORD})
    assert (await room.http.post("/distributions", json=body, headers=mine)).status_code == 201
    assert (await room.http.post("/distributions", json=body, headers={"x-room-id": ROOM})).status_code == 201
    foreign = await room.http.post("/distributions", json=body, headers=mine | {"x-user-id": str(uuid4())})
    assert (foreign.status_code, kind_of(foreign)) == (403, "not-allowed")
    crossing = await room.http.post("/receive", json=NOWHERE, headers=mine | {"origin": "http://x"})
    assert (crossing.status_code, kind_of(crossing)) == (403, "cross-origin")
    assert (await room.wallet.one(account)).balance == 800


async def test_whatever_is_malformed_is_refused_before_anything_moves(room: Room) -> None:
    await room.wallet.account(1_000, room.ada)
    for bad in (
        {"amount": 0},
        {"amount": 1.0},
        {"amount": 10**12 + 1},
        {"people": 0},
        {"people": 1_001},
        {"people": True},
        {"split": "fair"},
        {"account_id": "x"},
        {"more": 1},
    ):
        assert (await room.ask("POST", "/distributions", body=NEW | bad)).status_code == 422, bad
    for bad in (
        {},
        {"token": ""},
        {"token": "0" * 8},
        {"token": "2" * 9},
        {"token": 22222222},
        {"token": "2222222\n"},
    ):
        assert (await room.ask("POST", "/receive", body=bad)).status_code == 422, bad
    for headers in ({"x-room-id": ""}, {"x-room-id": "a b"}, {"x-room-id": "x" * 101}, {"x-user-id": "ada"}):
        assert (await room.ask("POST", "/distributions", body=NEW, headers=headers)).status_code == 422, headers
        assert (await room.ask("POST", "/receive", body=NOWHERE, headers=headers)).status_code == 422, headers
    for path in ("/receipts/x", f"/receipts/{uuid4()}", "/distributions/%00", "/distributions/%ff"):
        assert (await room.ask("GET", path)).status_code == 404, path
    assert kind_of(await room.ask("POST", "/receive", body=NOWHERE)) == "distribution-not-found"
    assert await room.wallet.query("select count(*) from distribution") == [0]


async def test_where_nobody_can_be_asked_the_answer_is_soon_and_leads_to_what_came_of_it(room: Room) -> None:
    account, user = await room.wallet.account(1_000, room.ada), await room.wallet.user()
    await room.wallet.account(0, user)
    opened = (await room.ask("POST", "/distributions", body=NEW)).json()
    own = await room.ask("POST", "/receive", body={"token": opened["token"]})
    assert (own.status_code, kind_of(own)) == (409, "not-for-giver")
    answer = await room.ask("POST", "/receive", user, {"token": opened["token"]}, headers=KEY)
    assert (answer.status_code, kind_of(answer)) == (503, "not-answered")
    path = answer.headers["link"].split(";")[0].strip("<>")
    assert path in answer.json()["detail"]
    receipt = (await room.ask("GET", path, user)).json()
    assert (receipt["status"], receipt["amount"]) == ("not_begun", 0)
    assert (await room.ask("GET", path)).status_code == 404, "it is another's"
    again = await room.ask("POST", "/receive", user, {"token": opened["token"]}, headers=KEY)
    assert again.headers["link"] != answer.headers["link"], "what came to nothing leaves the key free"
    assert (await room.wallet.one(account)).balance == 900
    assert await room.wallet.broken_rules() == []


async def test_a_crowd_s_sessions_are_looked_up_together_and_each_is_told_who_it_is(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    async def counted(connection: AsyncConnection, tokens: Sequence[str]) -> list[Who | Exception]:
        looks.append(len(tokens))
        return await who_are(connection, tokens)

    monkeypatch.setattr(sign_in, "who_are", counted)
    await room.http.post("/session", json={"name": "ada", "password": PASSWORD})
    [mine] = [f"tandem_session={token}" for token in room.http.cookies.values()]
    room.http.cookies.clear()
    cookies = [*[mine] * 30, "tandem_session=made-up", *[mine] * 30]
    answers = await asyncio.gather(*(room.http.get("/session", headers={"cookie": one}) for one in cookies))
    assert [one.status_code for one in answers] == [200] * 30 + [401] + [200] * 30
    assert sum(looks) == len(cookies)
    assert len(looks) < len(cookies) / 2
