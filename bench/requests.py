"""Sends orders over HTTP: as fast as they are answered, or at a given rate whatever becomes of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import orjson

from bench.errors import BenchError
from experiment.clock import Clock

IN_FLIGHT = 32
KEPT_S = 2.0
"""For how long a client keeps a connection that nobody uses. uvicorn closes it after 5 s, and a request that is
sent in that moment has no answer."""
_TIMEOUT_S = 60.0
_CREATED, _OK = 201, 200
_HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Client:
    """Sends to the service at one URL, over connections that are kept."""

    session: aiohttp.ClientSession
    url: str

    async def is_answered(self) -> bool:
        """Whether the service is there, and ready."""
        try:
            async with self.session.get(f"{self.url}/health/ready") as answer:
                return answer.status == _OK
        except aiohttp.ClientError:
            return False

    async def place(self, body: bytes) -> str:
        """Place an order and return its id. Raises `BenchError` for any other answer."""
        async with self.session.post(f"{self.url}/orders", data=body, headers=_HEADERS) as answer:
            said = await answer.read()
        if answer.status != _CREATED:
            raise BenchError(f"{self.url} answered {answer.status}: {said[:200].decode(errors='replace')}")
        return str(orjson.loads(said)["id"])

    async def saturate(self, bodies: Sequence[bytes]) -> None:
        """Place these orders, `IN_FLIGHT` under way at any time."""
        left = iter(bodies)
        await asyncio.gather(*(self._place_all(left) for _ in range(IN_FLIGHT)))

    async def _place_all(self, left: Iterator[bytes]) -> None:
        for body in left:
            await self.place(body)

    async def pace(self, bodies: Sequence[bytes], rate_per_s: float, seed: str) -> dict[str, float]:
        """Place them as a Poisson process; return by order id when each was due, in seconds since the epoch."""
        draw, clock = random.Random(seed), Clock()  # noqa: S311  a load, no secret
        due_s = clock.now_s()
        due: list[float] = []
        placing: list[asyncio.Task[str]] = []
        for body in bodies:
            due_s += draw.expovariate(rate_per_s)
            await asyncio.sleep(max(0.0, due_s - clock.now_s()))
            due.append(due_s)
            placing.append(asyncio.create_task(self.place(body)))
        return dict(zip(await asyncio.gather(*placing), due, strict=True))


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    """A client of the service at a URL."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_S)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Client(session, url)
