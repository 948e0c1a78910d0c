"""Every service restarted in turn under load: a client that tries again where nobody listens sees no error."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import uuid4

import httpx
import pytest

from deploy.topology import PROCESSES
from tests.system.running_system import LINES, RunningSystem, eventually

CLIENTS = 3
PAUSE_S = 0.5
"""Of a client between two orders. Without, they keep both cores busy, and every restart takes twice as long; with
this, some twenty requests a second are under way."""


class Load:
    """Clients that register, order, pay and look until told to stop; every answer is counted."""

    def __init__(self, system: RunningSystem) -> None:
        self.system = system
        self.answers: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.orders: list[str] = []
        self.stopping = False

    async def client(self, user: str) -> None:
        while not self.stopping:
            body = {"user_id": user, "currency": "EUR", "lines": LINES}
            placed = await self.request("POST", "order", "/orders", body)
            order = placed.json()["id"]
            self.orders.append(order)
            await self.request("GET", "order", f"/orders/{order}")
            await self.request("POST", "order", f"/orders/{order}/pay")
            await self.request("GET", "notification", f"/notifications?order_id={order}")
            await self.request("GET", "user", f"/users/{user}")
            await asyncio.sleep(PAUSE_S)

    async def request(self, method: str, service: str, path: str, body: object = None) -> httpx.Response:
        """Until there is an answer; with one key, so that what was done unseen is not done twice."""
        key = {"idempotency-key": str(uuid4())} if method == "POST" else {}

        async def answered() -> httpx.Response | None:
            try:
                url = f"{self.system.urls[service]}{path}"
                return await self.system.http.request(method, url, json=body, headers=key)
            except httpx.TransportError as error:
                self.unanswered[type(error).__name__] += 1
                return None

        answer: httpx.Response = await eventually(answered, f"{method} {path} is answered")
        self.answers[f"{method} {service} {answer.status_code}"] += 1
        assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer


@pytest.mark.timeout(400)
async def test_a_rolling_restart_under_load_shows_no_error_and_loses_nothing(system: RunningSystem) -> None:
    user = await system.register()
    await system.order(user)
    load = Load(system)
    said = len((system.runtime.site.logs / "supervisord.log").read_text().splitlines())
    clients = [asyncio.create_task(load.client(user)) for _ in range(CLIENTS)]
    try:
        for row in PROCESSES:
            name = system.process(row.name)
            before = len(load.orders)
            await asyncio.to_thread(system.runtime.processes.stop, name)
            await asyncio.to_thread(system.runtime.processes.start, name)

            async def goes_on(before: int = before) -> bool:
                return len(load.orders) > before

            await eventually(goes_on, f"orders are placed after the restart of {name}")
            assert not [client.exception() for client in clients if client.done()]
    finally:
        load.stopping = True
        ended = await asyncio.gather(*clients, return_exceptions=True)
    log = system.runtime.site.logs / "supervisord.log"
    killed = [line for line in log.read_text().splitlines()[said:] if "SIGKILL" in line]
    assert killed == [], "each ended of itself, within its grace period"
    assert ended == [None] * CLIENTS
    assert {answer.rpartition(" ")[2] for answer in load.answers} <= {"200", "201"}
    assert load.unanswered.keys() <= {"ConnectError", "RemoteProtocolError", "ReadError"}, load.unanswered
    await system.each_told_once(load.orders)
