"""The wallet over HTTP, on a real PostgreSQL; the worker's part is done by the test."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import SecretStr

from deploy.native import Runtime
from services.wallet.handlers.subscribers import SUBSCRIBERS
from services.wallet.handlers.transfers import get_transfer
from services.wallet.http import create_app, turns
from services.wallet.store.accounts import RECORD_MEMBER, find_member
from shared.process.service import Service
from tests.integration.wallets import PASSWORD, Wallet, opened_wallet
from tests.integration.world import eventually
from tests.unit.unserved import unserved

OpenClient = Callable[[], httpx.AsyncClient]


@pytest.fixture
async def wallet(servers: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wallet]:
    async with opened_wallet(servers, monkeypatch) as wallet:
        yield wallet


ADMIN_PASSWORD = "the first of all"
WAITING_FOR_LOCKS = """
select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""


@pytest.fixture
async def open_client(wallet: Wallet) -> AsyncIterator[Callable[[], httpx.AsyncClient]]:
    """Makes clients, each of whom nobody is signed in."""
    parts = unserved(Service("wallet", subscribers=SUBSCRIBERS))
    told = {"transfer_fees": "0:5+0", "wallet_admin_password": SecretStr(ADMIN_PASSWORD)}
    app = create_app(replace(parts, units=wallet.units, settings=parts.settings.model_copy(update=told)))
    clients: list[httpx.AsyncClient] = []

    def open_client() -> httpx.AsyncClient:
        clients.append(httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet"))
        return clients[-1]

    yield open_client
    for client in clients:
        await client.aclose()


@pytest.fixture
async def ada(wallet: Wallet) -> UUID:
    """A user who can sign in."""
    user_id = await wallet.user()
    await wallet.can_sign_in(user_id, "ada")
    return user_id


@pytest.fixture
async def client(open_client: OpenClient, ada: UUID) -> httpx.AsyncClient:
    """A client of whom Ada is signed in."""
    client = open_client()
    answer = await client.post("/session", json={"name": "ada", "password": PASSWORD})
    assert (answer.status_code, answer.json()["user_id"]) == (200, str(ada))
    return client


async def test_twenty_requests_for_what_ten_can_pay_are_all_answered_and_ten_are_done(
    wallet: Wallet,
    client: httpx.AsyncClient,
    ada: UUID,
) -> None:
    sender, receiver = await wallet.account(1_050, ada), await wallet.account()
    body = {"sender_id": str(sender), "receiver_id": str(receiver), "amount": 100, "sender_label": "rent"}
    quote = (await client.post("/transfers/quote", json={"sender_id": str(sender), "amount": 100})).json()
    assert (quote["fee"], quote["total"], quote["available"]) == (5, 105, 1_050)
    answers = await asyncio.gather(*(client.post("/transfers", json=body) for _ in range(20)))
    assert sorted(one.status_code for one in answers) == [202] * 10 + [409] * 10
    refused = next(one for one in answers if one.status_code == 409)
    assert refused.json()["type"].endswith("insufficient-funds")
    assert "has 0 available" in refused.json()["detail"]
    accepted = [one for one in answers if one.status_code == 202]
    account = (await client.get(f"/accounts/{sender}")).json()
    assert (account["balance"], account["held"], account["available"]) == (1_050, 1_050, 0)
    cancelled = await client.post(f"{accepted[0].headers['location']}/cancel", headers={"idempotency-key": "c"})
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    async with wallet.units.begin() as uow:
        pending = [await get_transfer(uow, one.json()["id"]) for one in accepted]
    await wallet.execute(pending)
    states = [(await client.get(one.headers["location"])).json()["status"] for one in accepted]
    assert sorted(states) == ["cancelled"] + ["completed"] * 9
    again = await client.post(f"{accepted[1].headers['location']}/cancel")
    assert (again.status_code, again.json()["type"].rpartition(":")[2]) == (409, "transfer-ended")
    listed = [
        await client.get("/transfers", params={"status": one, "limit": 9}) for one in ("completed", "cancelled")
    ]
    assert [len(one.json()["items"]) for one in listed] == [9, 1]
    newest = (await client.get("/transfers", params={"limit": 1})).json()
    older = (await client.get("/transfers", params={"cursor": newest["next_cursor"]})).json()
    ids = [one["id"] for one in newest["items"] + older["items"]]
    assert ids == sorted((one.json()["id"] for one in accepted), reverse=True)
    first = (await client.get(f"/accounts/{sender}/entries", params={"limit": 6})).json()
    rest = (await client.get(f"/accounts/{sender}/entries", params={"cursor": first["next_cursor"]})).json()
    assert [one["amount"] for one in first["items"] + rest["items"]] == [-105] * 9 + [1_050]
    assert await wallet.broken_rules() == []


async def test_who_waits_for_a_lock_of_their_own_keeps_nobody_else_waiting(
    wallet: Wallet,
    client: httpx.AsyncClient,
    open_client: OpenClient,
    ada: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More requests of Ada's than there are connections, while something else has her locked."""
    sender, receiver = await wallet.account(1_000, ada), await wallet.account()
    bob = await wallet.user()
    await wallet.can_sign_in(bob, "bob")
    bobs, own = open_client(), await wallet.account(1_000, bob)
    assert (await bobs.post("/session", json={"name": "bob", "password": PASSWORD})).status_code == 200
    body = {"sender_id": str(sender), "receiver_id": str(receiver), "amount": 10}
    monkeypatch.setattr(turns, "WAIT_S", 60.0)

    async def waits_for_a_lock() -> bool:
        return await wallet.query(WAITING_FOR_LOCKS) == [1]

    async with asyncio.timeout(60), asyncio.TaskGroup() as asking, wallet.units.begin() as uow:
        assert await find_member(uow.connection, ada, lock=True)
        waiting = [asking.create_task(client.post("/transfers", json=body)) for _ in range(12)]
        await eventually(waits_for_a_lock, "the first of Ada's waits for the lock")
        answer = await bobs.post("/transfers", json=body | {"sender_id": str(own)})
        assert answer.status_code == 202, answer.text
        assert not any(one.done() for one in waiting)
    assert [one.result().status_code for one in waiting] == [202] * 12


async def test_the_same_key_is_one_transfer_and_what_is_not_there_is_said(
    wallet: Wallet,
    client: httpx.AsyncClient,
    ada: UUID,
) -> None:
    sender, receiver = await wallet.account(1_050, ada), await wallet.account()
    body = {"sender_id": str(sender), "receiver_id": str(receiver), "amount": 100}
    key = {"Idempotency-Key": "one"}
    answers = [await client.post("/transfers", json=body, headers=key) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert (await client.get(f"/accounts/{sender}")).json()["held"] == 105
    for bad in ({"amount": 0}, {"amount": 1.5}, {"amount": 10**12 + 1}, {"receiver_label": "a\0"}, {"x": 1}):
        assert (await client.post("/transfers", json=body | bad)).status_code == 422
    assert (await client.post("/transfers", json=body | {"receiver_id": str(uuid4())})).status_code == 404
    same = await client.post("/transfers", json=body | {"receiver_id": str(sender)})
    assert same.json()["type"].endswith("receiver-not-possible")
    for path in (f"/transfers/{uuid4()}", f"/accounts/{uuid4()}", f"/accounts/{uuid4()}/entries"):
        assert (await client.get(path)).status_code == 404


async def test_without_a_session_nothing_is_told_and_nothing_done(wallet: Wallet, open_client: OpenClient) -> None:
    account = await wallet.account(100)
    body = {"sender_id": str(account), "receiver_id": str(uuid4()), "amount": 1}
    stranger = open_client()
    for session in ({}, {"tandem_session": "made-up"}):
        stranger.cookies.update(session)
        for method, path in (
            ("GET", "/accounts"),
            ("GET", f"/accounts/{account}"),
            ("GET", f"/accounts/{account}/entries"),
            ("GET", "/transfers"),
            ("GET", f"/transfers/{account}"),
            ("POST", "/transfers/quote"),
            ("POST", "/transfers"),
            ("POST", f"/transfers/{account}/cancel"),
            ("GET", "/session"),
            ("DELETE", "/session"),
            ("PUT", "/session/password"),
        ):
            answer = await stranger.request(method, path, json=None if method == "GET" else body)
            assert answer.status_code == 401, (method, path)
            assert answer.json()["type"].endswith("not-signed-in")


async def test_a_member_sees_and_moves_nothing_of_others(
    wallet: Wallet, client: httpx.AsyncClient, ada: UUID, open_client: OpenClient
) -> None:
    mine, theirs = await wallet.account(1_050, ada), await wallet.account(1_050)
    others = await wallet.ask(theirs, mine, 100)
    assert [one["id"] for one in (await client.get("/accounts")).json()["items"]] == [str(mine)]
    assert (await client.get("/transfers")).json() == {"items": [], "next_cursor": None}
    quote = {"sender_id": str(theirs), "amount": 1}
    for answer in (
        await client.get(f"/accounts/{theirs}"),
        await client.get(f"/accounts/{theirs}/entries"),
        await client.get(f"/transfers/{others.id}"),
        await client.post(f"/transfers/{others.id}/cancel"),
        await client.post("/transfers/quote", json=quote),
        await client.post("/transfers", json=quote | {"receiver_id": str(mine)}),
    ):
        assert answer.status_code == 404
        assert "does not exist" in answer.json()["detail"]
    administrator = open_client()
    await administrator.post("/session", json={"name": "admin", "password": ADMIN_PASSWORD})
    assert (await administrator.get("/session")).json()["role"] == "administrator"
    refused = await administrator.get("/accounts")
    assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (403, "not-allowed")


async def test_a_key_of_one_member_is_not_that_of_another(
    wallet: Wallet, client: httpx.AsyncClient, ada: UUID, open_client: OpenClient
) -> None:
    sender, receiver = await wallet.account(1_050, ada), await wallet.account()
    body, key = (
        {"sender_id": str(sender), "receiver_id": str(receiver), "amount": 100},
        {"Idempotency-Key": '"k 1"'},
    )
    assert (await client.post("/transfers", json=body, headers=key)).status_code == 202
    await wallet.can_sign_in(await wallet.user(), "bob")
    bob = open_client()
    await bob.post("/session", json={"name": "bob", "password": PASSWORD})
    assert (await bob.post("/transfers", json=body, headers=key)).status_code == 404
    assert (await client.post("/transfers", json=body, headers=key)).headers["idempotent-replayed"] == "true"


async def test_what_another_site_sends_is_refused_before_anything_is_done(
    wallet: Wallet, client: httpx.AsyncClient, ada: UUID
) -> None:
    account = await wallet.account(1_050, ada)
    transfer = await wallet.ask(account, await wallet.account(), 100)
    cancel = f"/transfers/{transfer.id}/cancel"
    for foreign in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://wallet"},
        {"origin": "http://wallet:8001"},
        {"origin": "null"},
    ):
        answer = await client.post(cancel, headers=foreign)
        assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (403, "cross-origin")
        assert (await client.get(f"/accounts/{account}", headers=foreign)).status_code == 200
    own = {"sec-fetch-site": "same-origin", "origin": "http://wallet"}
    assert (await client.post(cancel, headers=own)).json()["status"] == "cancelled"


async def test_the_cookie_is_for_this_site_and_no_script_and_ends_with_the_session(
    wallet: Wallet, client: httpx.AsyncClient, ada: UUID, open_client: OpenClient
) -> None:
    sign_in = {"name": "ada", "password": PASSWORD}
    again = open_client()
    cookie = (await again.post("/session", json=sign_in)).headers["set-cookie"].lower()
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip() for part in cookie.split(";")}
    [token] = again.cookies.values()
    assert token not in "".join(map(str, await wallet.query("select row(s.*)::text from session s")))
    assert (await again.delete("/session")).status_code == 204
    again.cookies.set("tandem_session", token)
    assert (await again.get("/session")).status_code == 401
    new = {"current": PASSWORD, "new": "another sesame"}
    assert (await client.put("/session/password", json=new)).status_code == 204
    assert (await client.get("/session")).status_code == 401, "all sessions end"
    assert (await client.post("/session", json=sign_in)).status_code == 401
    assert (await client.post("/session", json=sign_in | {"password": "another sesame"})).status_code == 200
    row = {"user_id": ada, "active": False, "version": 2}
    async with wallet.units.begin() as uow:
        uow.tell(RECORD_MEMBER, row)
    assert (await client.get("/session")).status_code == 401, "a user who is deactivated is signed in no more"


async def test_after_five_wrong_passwords_a_name_waits_however_many_try_at_once(
    wallet: Wallet, ada: UUID, open_client: OpenClient
) -> None:
    client = open_client()
    right = {"name": "ada", "password": PASSWORD}
    wrong = [client.post("/session", json=right | {"password": f"wrong {number}"}) for number in range(5)]
    assert [one.status_code for one in await asyncio.gather(*wrong)] == [401] * 5
    assert await wallet.query("select attempts from sign_in where not_before is not null") == [5]
    await wallet.change("update sign_in set not_before = now() + interval '1 hour'")
    waits = await client.post("/session", json=right)
    assert (waits.status_code, waits.headers["retry-after"]) == (429, "300")
    unknown = await client.post("/session", json=right | {"name": "nobody"})
    assert (unknown.status_code, unknown.json()["type"].rpartition(":")[2]) == (401, "wrong-password")
    await wallet.change("update sign_in set not_before = now()")
    assert (await client.post("/session", json=right)).status_code == 200
    assert await wallet.query("select attempts from sign_in where not_before is null") == [0]


async def test_what_is_for_administrators_is_refused_to_everybody_else(
    wallet: Wallet, client: httpx.AsyncClient, open_client: OpenClient
) -> None:
    paths: dict[str, dict[str, object]] = (await client.get("/openapi.json")).json()["paths"]
    routes = [
        (verb.upper(), path) for path, verbs in paths.items() if path.startswith("/admin/") for verb in verbs
    ]
    assert len(routes) >= 15
    for method, path in routes:
        url = re.sub(r"\{\w+_id(:uuid)?\}", str(uuid4()), path).replace("{name}", "plain")
        body = {"reason": "none"} if method in {"POST", "PUT"} else None
        assert (await open_client().request(method, url, json=body)).status_code == 401, path
        refused = await client.request(method, url, json=body)
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (403, "not-allowed"), path
    assert await wallet.query("select count(*) from act") == [0]


async def test_an_administrator_runs_the_house_and_every_act_is_recorded_with_who_and_why(
    wallet: Wallet, open_client: OpenClient
) -> None:
    admin, user_id = open_client(), str(await wallet.user())
    assert (await admin.post("/session", json={"name": "admin", "password": ADMIN_PASSWORD})).status_code == 200

    async def do(method: str, path: str, **body: object) -> httpx.Response:
        return await admin.request(
            method, f"/admin/{path}", json={"reason": f"why {path.split('/', maxsplit=1)[0]}", **body}
        )

    new = {"user_id": user_id, "type": "plain", "currency": "KRW"}
    assert (await do("POST", "accounts", **new)).json()["type"].endswith("account-type-not-found")
    assert (await do("PUT", "account-types/plain", one_time=1_000, daily=5_000)).json()["daily"] == 5_000
    assert (await do("POST", "accounts", **new | {"user_id": str(uuid4())})).status_code == 404
    opened = await do("POST", "accounts", **new)
    account_id = opened.json()["id"]
    assert (opened.status_code, opened.headers["location"]) == (201, f"/admin/accounts/{account_id}")
    key = {"Idempotency-Key": "pay-in"}
    paid_in = {"amount": 900, "reason": "paid in"}
    answers = [
        await admin.post(f"/admin/accounts/{account_id}/adjustments", json=paid_in, headers=key) for _ in range(2)
    ]
    assert [one.json()["balance"] for one in answers] == [900, 900]
    too_much = await do("POST", f"accounts/{account_id}/adjustments", amount=-901)
    assert (too_much.status_code, too_much.json()["type"].rpartition(":")[2]) == (409, "insufficient-funds")
    assert (await do("POST", f"accounts/{account_id}/adjustments", amount=0)).status_code == 422
    assert (await do("PUT", f"accounts/{account_id}/limits", one_time=10, daily=None)).json()[
        "limit_one_time"
    ] == 10
    ends_at = "2999-01-01T00:00:00+09:00"
    granted = await do("POST", f"accounts/{account_id}/exceptions", kind="one_time", amount=800, ends_at=ends_at)
    assert granted.json()["exceptions"][0]["amount"] == 800
    limits = {"limit_total": 700, "free_transfers": 2}
    assert (await do("PUT", f"users/{user_id}/limits", **limits)).json()["free_transfers"] == 2
    sign_in = {"user_id": user_id, "password": PASSWORD}
    assert (await do("PUT", "sign-ins/ada", **sign_in)).status_code == 204
    nobodys = sign_in | {"user_id": None}
    for name, taken in (("other", sign_in), ("admin", sign_in), ("ada", nobodys)):
        assert (await do("PUT", f"sign-ins/{name}", **taken)).json()["type"].endswith("name-taken")

    ada, other = open_client(), await wallet.account()
    assert (await ada.post("/session", json={"name": "ada", "password": PASSWORD})).status_code == 200
    wish = {"sender_id": account_id, "receiver_id": str(other), "amount": 700}
    sent = await ada.post("/transfers", json=wish)
    assert (sent.status_code, sent.json()["fee"]) == (202, 0), "the exception holds, and it is free"
    assert (await ada.post("/transfers", json=wish | {"amount": 1})).json()["type"].endswith("limit-exceeded")
    assert (await do("POST", f"accounts/{account_id}/freeze")).json()["frozen"] is True
    await wallet.execute([await wallet.transfer_of(UUID(sent.json()["id"]))])
    query = {"account_id": account_id, "status": "failed"}
    found = (await admin.get("/admin/transfers", params=query)).json()["items"]
    assert [(one["id"], one["reason"]) for one in found] == [(sent.json()["id"], "sender_frozen")]
    assert (await admin.get(f"/admin/transfers/{found[0]['id']}")).json()["user_id"] == user_id
    assert (await do("POST", f"accounts/{account_id}/thaw")).json()["held"] == 0

    detail = (await admin.get(f"/admin/users/{user_id}")).json()
    assert (detail["signs_in_as"], [one["id"] for one in detail["accounts"]]) == ("ada", [account_id])
    first = (await admin.get("/admin/users", params={"limit": 1})).json()
    rest = (await admin.get("/admin/users", params={"cursor": first["next_cursor"]})).json()
    assert user_id in {one["user_id"] for one in first["items"] + rest["items"]}
    owned = (await admin.get(f"/admin/accounts?user_id={user_id}")).json()["items"]
    assert [one["id"] for one in owned] == [account_id]
    entries = (await admin.get(f"/admin/accounts/{account_id}/entries")).json()["items"]
    assert [(one["amount"], one["label"]) for one in entries] == [(900, "paid in")]
    every = (await admin.get("/admin/acts")).json()["items"]
    acts = (await admin.get("/admin/acts", params={"subject": account_id})).json()["items"]
    assert [one["kind"] for one in reversed(acts)] == [
        "open_account", "adjust", "set_account_limits", "grant_exception", "freeze", "thaw"
    ]  # fmt: skip
    assert {one["administrator"] for one in every} == {"admin"}
    assert {one["reason"] for one in acts} == {"why accounts", "paid in"}
    assert {one["kind"] for one in every} - {one["kind"] for one in acts} == {
        "set_account_type", "set_user_limits", "set_sign_in"
    }  # fmt: skip
    assert PASSWORD not in str(every)
    assert await wallet.broken_rules() == []
