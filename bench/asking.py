"""Asks a server so many times a second, whatever becomes of it: `python -m bench.asking PLAN`.

A process of its own, so that it holds nobody up and nobody it. The plan is a file, JSON as `Plan` has it. On
standard output comes JSON as `Told` has it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from pydantic import BaseModel

from bench.requests import KEPT_S
from experiment.event_loop import precise_loop
from shared.garbage import rest_garbage_collector

_TIMEOUT_S = 30.0
_NO_ANSWER = 0


class Asked(BaseModel):
    """A POST of JSON."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, str | int]


class Plan(BaseModel):
    """What is asked, evenly in time; the first `warming` requests count for nothing, and come twice as fast."""

    url: str
    rate_per_s: float
    warming: int
    requests: list[Asked]

    def due_s(self, number: int) -> float:
        """When a request is due, from the first on."""
        return (number - min(number, self.warming) / 2) / self.rate_per_s


class Told(BaseModel):
    """Milliseconds from when a request was due to the end of its answer, and how many had which status; 0 is none.

    What was not answered counts with the time that it took to find that out.
    """

    latencies_ms: list[float]
    statuses: dict[int, int]


async def ask_all(plan: Plan) -> Told:
    """Ask as the plan says; returns when all is answered."""
    loop = asyncio.get_running_loop()
    statuses: Counter[int] = Counter()
    latencies_ms = [0.0] * len(plan.requests)

    async def ask(session: aiohttp.ClientSession, number: int, due_s: float) -> None:
        one = plan.requests[number]
        try:
            async with session.post(f"{plan.url}{one.path}", json=one.body, headers=one.headers) as answer:
                await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            status = _NO_ANSWER
        latencies_ms[number] = (loop.time() - due_s) * 1_000
        statuses[status] += 1

    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_S)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        asyncio.TaskGroup() as tasks,
    ):
        began_s = loop.time()
        for number in range(len(plan.requests)):
            due_s = began_s + plan.due_s(number)
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            tasks.create_task(ask(session, number, due_s))
    return Told(latencies_ms=latencies_ms[plan.warming :], statuses=dict(statuses))


if __name__ == "__main__":
    plan = Plan.model_validate_json(Path(sys.argv[1]).read_bytes())
    rest_garbage_collector()
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        print(runner.run(ask_all(plan)).model_dump_json())
