"""The wallet of a running system, as its administrator and its members use it."""

from __future__ import annotations

from contextlib import AsyncExitStack

import httpx

from tests.forked import fork
from tests.system.running_system import DEADLINE_S, RunningSystem, eventually

ADMIN_PASSWORD = "the first of all"
GATEWAY_TOKEN = "of the chat's gateway"
"""As the services are told."""
PASSWORD = "open, sesame"


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
        client = httpx.AsyncClient(base_url=self.system.urls["wallet"], timeout=30, trust_env=False, verify=False)
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
        return await self.signed_in(await self.name_of(user_id))

    async def name_of(self, user_id: str) -> str:
        """With what name this user can sign in from now on, and with `PASSWORD`."""
        name = f"user-{user_id}"
        assert (await self._do("PUT", f"sign-ins/{name}", user_id=user_id, password=PASSWORD)).status_code == 204
        return name

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
