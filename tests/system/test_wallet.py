"""Money on the whole system, on both brokers: what is accepted is done once, while the worker is slow."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.forked import fork
from tests.system.running_system import DEADLINE_S, RunningSystem, eventually

ADMIN_PASSWORD = "the first of all"
"""As the services are told in conftest.py."""
PASSWORD = "open, sesame"
GATEWAY_TOKEN = "of the chat's gateway"
"""The same."""


@pytest.fixture
async def house(system: RunningSystem) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        house = House(system, stack)
        await house.open()
        yield house


class House:
    """The wallet of a running system, as its administrator and its members see it."""

    def __init__(self, system: RunningSystem, stack: AsyncExitStack) -> None:
        self.system = system
        self._stack = stack
        self._admin: httpx.AsyncClient

    async def open(self) -> None:
        self._admin = await self.signed_in("admin", ADMIN_PASSWORD)
        await self._do("PUT", "account-types/plain", one_time=10_000, daily=1_000_000)

    async def signed_in(self, name: str, password: str = PASSWORD) -> httpx.AsyncClient:
        client = httpx.AsyncClient(base_url=self.system.urls["wallet"], timeout=30, trust_env=False)
        await self._stack.enter_async_context(client)
        answer = await client.post("/session", json={"name": name, "password": password})
        assert answer.status_code == 200, answer.text
        return client

    async def account(self, user_id: str, paid_in: int) -> str:
        """An account of a user who has registered, which the wallet hears of a little later."""
        wanted = {"user_id": user_id, "type": "plain", "currency": "KRW"}

        async def opened() -> str | None:
            answer = await self._do("POST", "accounts", **wanted)
            return str(answer.json()["id"]) if answer.status_code == 201 else None

        account_id: str = await eventually(opened, f"the wallet has heard of {user_id}")
        if paid_in:
            answer = await self._do("POST", f"accounts/{account_id}/adjustments", amount=paid_in)
            assert answer.json()["balance"] == paid_in
        return account_id

    async def member(self, user_id: str) -> httpx.AsyncClient:
        """A client of whom this user is signed in."""
        name = f"user-{user_id}"
        assert (await self._do("PUT", f"sign-ins/{name}", user_id=user_id, password=PASSWORD)).status_code == 204
        return await self.signed_in(name)

    async def in_room(
        self, user_id: str, method: str, path: str, body: object = None, key: str | None = None
    ) -> httpx.Response:
        """What the gateway of a chat asks for a user."""
        told = {"x-gateway-token": GATEWAY_TOKEN, "x-user-id": user_id, "x-room-id": "room"}
        return await self._admin.request(
            method, path, json=body, headers=told | ({"idempotency-key": key} if key else {})
        )

    async def audit(self) -> int:
        """The exit code of the audit, on the system as it runs."""
        environment = self.system.runtime.service_env("wallet", self.system.broker_name, self.system.broker_name)
        process = await fork("services.wallet.app", "audit", environment=environment)
        return await process.wait(DEADLINE_S)

    async def _do(self, method: str, path: str, **body: object) -> httpx.Response:
        return await self._admin.request(method, f"/admin/{path}", json={"reason": "a test", **body})


async def test_of_twenty_transfers_the_ten_that_can_be_paid_are_done_and_ten_refused_at_once(
    system: RunningSystem, house: House
) -> None:
    ada, bob = await system.register("Ada"), await system.register("Bob")
    sender, receiver = await house.account(ada, 1_000), await house.account(bob, 0)
    client = await house.member(ada)
    body = {"sender_id": sender, "receiver_id": receiver, "amount": 100, "sender_label": "rent"}
    answers = await asyncio.gather(*(client.post("/transfers", json=body) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [202] * 10 + [409] * 10
    for refused in answers:
        if refused.status_code == 409:
            assert refused.json()["type"].endswith("insufficient-funds")
            assert f"account {sender} has 0 available" in refused.json()["detail"]
    accepted = [answer.headers["location"] for answer in answers if answer.status_code == 202]
    assert await house.audit() == 0, "also in the middle of it"

    async def states() -> list[str]:
        return [(await client.get(path)).json()["status"] for path in accepted]

    async def done() -> bool:
        return await states() == ["completed"] * 10

    await eventually(done, "all ten are completed")
    account = (await client.get(f"/accounts/{sender}")).json()
    assert (account["balance"], account["held"], account["available"]) == (0, 0, 0)
    entries = (await (await house.member(bob)).get(f"/accounts/{receiver}/entries")).json()["items"]
    assert [entry["amount"] for entry in entries] == [100] * 10
    assert await house.audit() == 0
    for user_id, told in ((ada, "transfer.completed"), (bob, "transfer.received")):
        assert Counter(await system.until_told(11, user_id=user_id)) == {"user.registered": 1, told: 10}


async def test_a_distribution_of_ten_that_twenty_ask_for_at_once_is_ten_shares_and_ten_hear_of_nothing_left(
    system: RunningSystem, house: House
) -> None:
    giver, *others = await asyncio.gather(*(system.register(f"Guest {number}") for number in range(21)))
    accounts = await asyncio.gather(house.account(giver, 1_000), *(house.account(user, 0) for user in others))
    opened = await house.in_room(giver, "POST", "/distributions", {"amount": 1_000, "people": 10})
    assert opened.status_code == 201, opened.text
    wanted = {"token": opened.json()["token"]}

    async def received(user_id: str) -> httpx.Response:
        """On a loaded machine there may be no answer in time: then the same is asked again, with the same key."""

        async def answered() -> httpx.Response | None:
            answer = await house.in_room(user_id, "POST", "/receive", wanted, "k")
            return answer if answer.status_code < 500 else None

        answer: httpx.Response = await eventually(answered, f"{user_id} has an answer")
        return answer

    answers = await asyncio.gather(*(received(user_id) for user_id in others))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [409] * 10
    taken = {
        user_id: answer.json()["amount"]
        for user_id, answer in zip(others, answers, strict=True)
        if answer.status_code == 200
    }
    for refused in answers:
        assert refused.status_code == 200 or refused.json()["type"].endswith("nothing-left")
    assert sum(taken.values()) == 1_000
    for user_id in list(taken)[:2]:
        again = await house.in_room(user_id, "POST", "/receive", wanted, "k")
        assert (again.json()["amount"], again.headers["idempotent-replayed"]) == (taken[user_id], "true")
        assert (await house.in_room(user_id, "GET", again.headers["location"])).json() == again.json()
    shown = (await house.in_room(giver, "GET", opened.headers["location"])).json()
    assert {share["user_id"]: share["amount"] for share in shown["shares"]} == taken
    assert (shown["taken"], shown["given_back"], shown["closed_at"] is None) == (1_000, 0, False)
    assert len(set(accounts)) == 21
    assert await house.audit() == 0
    told = Counter(await system.until_told(2, user_id=giver))
    assert told == {"user.registered": 1, "distribution.closed": 1}
