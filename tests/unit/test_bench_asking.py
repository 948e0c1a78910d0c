"""What asks a server so many times a second: when each is due, and which count."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench.asking import Asked, Plan, ask_all


def plan_of(url: str, count: int, *, rate_per_s: float, warming: int) -> Plan:
    asked = [Asked(path="/", headers={"x-number": str(number)}, body={"n": number}) for number in range(count)]
    return Plan(url=url, rate_per_s=rate_per_s, warming=warming, requests=asked)


def test_those_that_warm_up_come_twice_as_fast_and_all_others_at_the_rate() -> None:
    plan = plan_of("", 6, rate_per_s=10, warming=3)
    assert [plan.due_s(number) for number in range(6)] == pytest.approx([0, 0.05, 0.1, 0.15, 0.25, 0.35])


async def test_every_answer_is_told_by_its_status_and_those_that_warm_up_without_their_time() -> None:
    bodies: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append((await request.json())["n"])
        return web.Response(status=202 if int(request.headers["x-number"]) else 500)

    app = web.Application()
    app.router.add_post("/", answer)
    async with TestServer(app) as server:
        told = await ask_all(plan_of(str(server.make_url("")).rstrip("/"), 6, rate_per_s=500, warming=2))
    assert (sorted(bodies), told.statuses) == (list(range(6)), {500: 1, 202: 5})
    assert len(told.latencies_ms) == 4
    assert all(0 < latency_ms < 10_000 for latency_ms in told.latencies_ms)
