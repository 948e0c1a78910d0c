"""One whole system on one broker, as a client sees it, and the few looks behind it that the tests need."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from deploy.native import BrokerName, Runtime
from shared.broker.base import Broker, DeadLetter
from shared.broker.connect import create_broker
from shared.dead_letter.headers import ERROR_TYPE
from shared.settings import Settings
from tests.forked import fork

DEADLINE_S = 120.0
"""Bounds a wait on a loaded machine; no test measures time."""

LINES = [{"sku": "TEA-250", "quantity": 2, "unit_amount": 1250}]


async def eventually(
    condition: Callable[[], Awaitable[Any]], what: str, deadline_s: float = DEADLINE_S, interval_s: float = 0.2
) -> Any:
    """Ask until the answer is true; return it. Fails, saying what was awaited, after `deadline_s`."""
    deadline = time.monotonic() + deadline_s
    while True:
        answer = await condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}; last answer: {answer!r}"
        await asyncio.sleep(interval_s)


class RunningSystem:
    """All services on one broker; `instance` keeps its databases, ports and process names from the other's."""

    def __init__(self, runtime: Runtime, broker: BrokerName) -> None:
        self.runtime = runtime
        self.broker_name: BrokerName = broker
        self.expected_dead_letters: set[bytes] = set()
        self.urls = runtime.addresses.service_urls(broker)
        self.mail = {"TANDEM_SMTP_URL": runtime.server_urls()["mail"]}
        """What a `notification-consumer` is told that is to send mail: see `in_place_of`."""
        limits = httpx.Limits(max_connections=50)
        self.http = httpx.AsyncClient(timeout=30, trust_env=False, verify=False, limits=limits)
        self._pools: dict[str, asyncpg.Pool[Any]] = {}

    async def aclose(self) -> None:
        """Close the connections to services and databases."""
        await self.http.aclose()
        for pool in self._pools.values():
            await pool.close()

    def process(self, name: str) -> str:
        """The supervised name of `order`, `notification-consumer`, …"""
        return f"{self.broker_name}-{name}"

    # -- as a client

    async def post(self, service: str, path: str, body: Any = None, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"idempotency-key": key}
        return await self.http.post(
            f"{self.urls[service]}{path}", json={} if body is None else body, headers=headers
        )

    async def get(self, service: str, path: str, **query: Any) -> httpx.Response:
        return await self.http.get(f"{self.urls[service]}{path}", params=query)

    async def insist(self, service: str, path: str, body: Any = None, key: str | None = None) -> dict[str, Any]:
        """Send until it is accepted, as a client does that has a key: over restarts, 503 and `Retry-After`."""
        key = key or str(uuid4())

        async def accepted() -> httpx.Response | None:
            try:
                answer = await self.post(service, path, body, key)
            except httpx.TransportError:
                return None
            if answer.status_code == 503 or (answer.status_code == 409 and "retry-after" in answer.headers):
                return None
            assert answer.status_code in {200, 201}, f"{answer.status_code} {answer.text}"
            return answer

        answer: httpx.Response = await eventually(accepted, f"POST {path} is accepted")
        result: dict[str, Any] = answer.json()
        return result

    async def register(self, name: str = "Ada") -> str:
        user = await self.insist("user", "/users", {"email": "ada@example.org", "name": name})
        return str(user["id"])

    async def order(self, user_id: str, key: str | None = None) -> str:
        body = {"user_id": user_id, "currency": "EUR", "lines": LINES}
        return str((await self.insist("order", "/orders", body, key))["id"])

    async def told_of(self, **query: str) -> list[str]:
        """The event types of the notifications, oldest first."""
        answer = await self.get("notification", "/notifications", **query, limit=500)
        assert answer.status_code == 200, answer.text
        return [item["event_type"] for item in reversed(answer.json()["items"])]

    async def until_told(self, count: int, **query: str) -> list[str]:
        async def told() -> list[str] | None:
            types = await self.told_of(**query)
            return types if len(types) >= count else None

        types: list[str] = await eventually(told, f"{count} notifications of {query}")
        return types

    # -- behind it

    async def rows(self, service: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
        if service not in self._pools:
            dsn = self.runtime.dsn(f"{self.broker_name}_{service}")
            self._pools[service] = asyncpg.create_pool(dsn, min_size=0, max_size=4)
        found: list[asyncpg.Record] = await (await self._pools[service]).fetch(query, *arguments)
        return found

    async def outbox_length(self, service: str) -> int:
        [row] = await self.rows(service, "select count(*) as length from outbox")
        return int(row["length"])

    async def notifications_of(self, order_ids: list[str]) -> Counter[str]:
        """How many `order.placed` notifications each order has."""
        rows = await self.rows(
            "notification",
            "select order_id::text as id from notification"
            " where event_type = 'order.placed' and order_id = any($1::uuid[])",
            order_ids,
        )
        return Counter(row["id"] for row in rows)

    async def each_told_once(self, order_ids: list[str], deadline_s: float = DEADLINE_S) -> None:
        """Every order gets its one notification, none a second one, nothing is dead-lettered."""

        async def all_told() -> bool:
            return len(await self.notifications_of(order_ids)) == len(set(order_ids))

        await eventually(all_told, f"a notification for each of {len(order_ids)} orders", deadline_s)
        await eventually(self._outboxes_empty, "the outboxes are empty", deadline_s)
        await self.quiet()
        doubled = {order: count for order, count in (await self.notifications_of(order_ids)).items() if count != 1}
        assert doubled == {}
        assert [
            letter for letter in await self.dead_letters() if letter.body not in self.expected_dead_letters
        ] == []

    async def _outboxes_empty(self) -> bool:
        return await self.outbox_length("order") == 0 and await self.outbox_length("user") == 0

    async def quiet(self) -> None:
        """Nothing is under way: events that come last of all, some for each partition, have arrived."""
        user = await self.register("Last of all")
        last = [await self.order(user) for _ in range(12)]

        async def arrived() -> bool:
            return len(await self.notifications_of(last)) == len(last)

        await eventually(arrived, "the last events of all arrive")

    @asynccontextmanager
    async def broker(self) -> AsyncIterator[Broker]:
        """The adapter, with the services' own settings."""
        environment = self.runtime.service_env("notification-consumer", self.broker_name, self.broker_name)
        names = {
            "broker",
            "http_port",
            "postgres_dsn",
            "redis_url",
            "rabbit_url",
            "kafka_bootstrap",
            "kafka_partitions",
        }
        values = {name: environment.get(f"TANDEM_{name.upper()}") for name in names}
        async with create_broker(Settings.from_environment(**values), "system-tests") as broker:
            yield broker

    async def dead_letters(self) -> list[DeadLetter]:
        """What is kept of what nobody could process yet, oldest first; mails, reports and verdicts apart."""
        rows = await self.rows(
            "dead_letter",
            "select subscriber || '.' || channel as queue, body, error_type from dead_letter"
            " where state <> 'resolved' and subscriber not in ('fraud', 'mail', 'report') order by sequence",
        )
        return [DeadLetter(row["queue"], row["body"], {ERROR_TYPE: row["error_type"]}) for row in rows]

    @asynccontextmanager
    async def in_place_of(self, process: str, environment: dict[str, str]) -> AsyncIterator[str]:
        """In place of `process` runs one with these settings, which is not restarted if it ends; yields its name.

        When the block is left, the real one runs again.
        """
        name = self.process(process)
        await asyncio.to_thread(self.runtime.processes.stop, name)
        extra = await asyncio.to_thread(
            self.runtime.processes.start_extra, name, "instead", environment, in_place=True
        )
        try:
            yield extra
        finally:
            await asyncio.to_thread(self.runtime.processes.stop_extra, extra)
            await asyncio.to_thread(self.runtime.processes.start, name)

    # -- processes that stop dead

    @asynccontextmanager
    async def halted(self, process: str, point: str, directory: Path) -> AsyncIterator[Path]:
        """In place of `process` runs one that stops at `point`; yields the file that says that it is there.

        When the block is left it is killed with SIGKILL, if it still lives, and the real one starts.
        """
        name = self.process(process)
        await asyncio.to_thread(self.runtime.processes.stop, name)
        reached = directory / f"{name}-{point}"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TANDEM_")},
            **self.runtime.service_env(name, self.broker_name, self.broker_name),
            "TANDEM_SMTP_URL": "",  # or a subscription that sends mail might be the first to reach the point
        }
        service = process.partition("-")[0]
        halting = await fork("tests.system.halting", service, point, str(reached), environment=environment)
        try:
            yield reached
        finally:
            halting.kill()
            await halting.wait(DEADLINE_S)
            await asyncio.to_thread(self.runtime.processes.start, name)


async def exists(path: Path) -> bool:
    return await asyncio.to_thread(path.exists)
