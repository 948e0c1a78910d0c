"""The wallet over HTTP, on a real PostgreSQL; the worker's part is done by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest

from deploy.native import Runtime
from services.wallet import handlers
from services.wallet.http import create_app
from shared.process.service import Service
from tests.integration.wallets import FEES, Wallet, opened_wallet
from tests.unit.unserved import unserved


@pytest.fixture
async def wallet(servers: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wallet]:
    async with opened_wallet(servers, monkeypatch) as wallet:
        yield wallet


@pytest.fixture
async def client(wallet: Wallet) -> AsyncIterator[httpx.AsyncClient]:
    service = Service("wallet", subscribers=handlers.SUBSCRIBERS)
    parts = replace(unserved(service), units=wallet.units)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(parts, FEES)), base_url="http://wallet"
    ) as client:
        yield client


async def test_twenty_requests_for_what_ten_can_pay_are_all_answered_and_ten_are_done(
    wallet: Wallet,
    client: httpx.AsyncClient,
) -> None:
    sender, receiver = await wallet.account(1_050), await wallet.account()
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
    cancelled = await client.post(f"{accepted[0].headers['location']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    async with wallet.units.begin() as uow:
        pending = [await handlers.get_transfer(uow, one.json()["id"]) for one in accepted]
    await wallet.execute(pending)
    states = [(await client.get(one.headers["location"])).json()["status"] for one in accepted]
    assert sorted(states) == ["cancelled"] + ["completed"] * 9
    again = await client.post(f"{accepted[1].headers['location']}/cancel")
    assert (again.status_code, again.json()["type"].rpartition(":")[2]) == (409, "transfer-ended")
    first = (await client.get(f"/accounts/{sender}/entries", params={"limit": 6})).json()
    rest = (await client.get(f"/accounts/{sender}/entries", params={"cursor": first["next_cursor"]})).json()
    assert [one["amount"] for one in first["items"] + rest["items"]] == [-105] * 9 + [1_050]
    assert await wallet.broken_rules() == []


async def test_the_same_key_is_one_transfer_and_what_is_not_there_is_said(
    wallet: Wallet,
    client: httpx.AsyncClient,
) -> None:
    sender, receiver = await wallet.account(1_050), await wallet.account()
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
