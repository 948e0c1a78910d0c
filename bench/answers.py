"""Measures how soon requests are answered that come so many a second, whatever becomes of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

import aiohttp
from redis.asyncio import Redis

from bench import backlog
from bench.asking import Asked, Plan, Told
from bench.errors import BenchError
from bench.ledger import Ledger
from bench.people import GATEWAY_TOKEN, People
from bench.rows import ACCEPTANCE, ACCEPTANCE_TASKS, RECEIVE, RECEIVE_TASKS, WEB, Contender
from bench.running import Runner, Running
from deploy.paths import REPOSITORY
from experiment.clock import until
from shared.broker import Subscription
from shared.settings import Settings

RATE_PER_S = 50.0
DELAY_S = 5.0
"""What workers sleep before each transfer while `acceptance` is measured."""
_WARMING = 100
"""Requests before those that are counted: all is loaded, connected and prepared then."""
_COMPILING: Mapping[str, int] = {"kafka": 2_000}
"""So many come first to a broker that compiles itself while it works. One takes Kafka 11 ms of CPU at first, most
of it to compile, and 3 after some thousand; a backlog is few requests, however many events it has."""
_TOLD = Subscription(
    channel="transfer", subscriber="nobody", types=frozenset({"transfer.completed", "transfer.received"})
)
"""What becomes of transfers. An event that nobody wants waits in the outbox, and what its sender asks for behind
it: where notifications are, it is wanted."""
_READY_TIMEOUT_S = 90.0
_ASKING_TIMEOUT_S = 300.0
_POLL_S = 0.2
_PERCENTILE = 0.99


@dataclass(frozen=True, slots=True)
class Answers:
    """The wallet, and FastAPI with tasks of Celery on Redis, on the tables of one ledger."""

    runner: Runner
    ledger: Ledger
    people: People
    dsn: str
    _compiled: set[str] = field(default_factory=set)
    """The brokers that have."""

    async def measure(
        self, contender: Contender, channel: str, count: int, seed: str, advance: backlog.Advance
    ) -> float:
        """The 99th percentile, in ms from when a request was due until it was answered.

        Raises `BenchError` when one is not answered with success, or what was done is not right.
        """
        settings = self.runner.settings.get(contender.broker, self.runner.settings["rabbit"])
        if contender.name in (RECEIVE_TASKS, ACCEPTANCE_TASKS):
            async with Redis.from_url(settings.redis_url) as redis:
                await redis.flushdb()
        received = contender.name in (RECEIVE, RECEIVE_TASKS)
        warming = self._warming(contender.broker)
        asking = warming + count
        if received:
            requests = await self.people.who_receive(asking, seed)
        else:
            requests = await self.people.who_send(asking, seed, held=contender.name == ACCEPTANCE_TASKS)
        delay_s = 0.0 if received else DELAY_S
        async with self._serving(contender, channel, settings, delay_s=delay_s) as running:
            told = await self._ask(settings, requests, warming, channel)
        advance(count)
        if set(told.statuses) != {200 if received else 202}:
            raise running.failed(f"answers by their status: {told.statuses}")
        if not received:
            async with self._serving(contender, f"{channel}-later", settings, delay_s=0) as running:
                await running.until(asking, self.ledger.count, lambda _: None, what="transfers")
        problems = await (self.people.problems_of_receiving() if received else self.ledger.problems())
        if problems:
            raise running.failed(", ".join(problems))
        advance(count)
        ordered = sorted(told.latencies_ms)
        return ordered[ceil(_PERCENTILE * len(ordered)) - 1]

    @asynccontextmanager
    async def _serving(
        self, contender: Contender, channel: str, settings: Settings, *, delay_s: float
    ) -> AsyncIterator[Running]:
        """The wallet's one process, or Celery's worker with FastAPI in front of it; ready."""
        own = {
            "TANDEM_POSTGRES_DSN": self.dsn,
            "TANDEM_ROLES": "api,relay,consumer",
            "TANDEM_WALLET_GATEWAY_TOKEN": GATEWAY_TOKEN,
            "TANDEM_TRANSFER_DELAY_S": str(delay_s),
            "BENCH_QUEUE": channel.removesuffix("-later"),
        }
        if contender.name == ACCEPTANCE:
            await backlog.declare(settings, _TOLD)
        async with self.runner.running(contender, channel, own) as running:
            if contender.name in (RECEIVE, ACCEPTANCE):
                await _until_ready(running, settings)
                yield running
            else:
                async with self.runner.running(Contender(WEB, contender.broker), channel, own) as web:
                    await _until_ready(web, settings)
                    yield running

    def _warming(self, broker: str) -> int:
        if broker in self._compiled:
            return _WARMING
        self._compiled.add(broker)
        return _COMPILING.get(broker, _WARMING)

    async def _ask(self, settings: Settings, requests: Sequence[Asked], warming: int, channel: str) -> Told:
        plan = Plan(
            url=f"http://127.0.0.1:{settings.http_port}",
            rate_per_s=RATE_PER_S,
            warming=warming,
            requests=list(requests),
        )
        path = self.runner.logs / f"{channel}.json"
        await asyncio.to_thread(path.write_text, plan.model_dump_json())
        return await _told_by_process(path)


async def _told_by_process(plan: Path) -> Told:
    """Raises `BenchError` when the process that asks fails or does not come to an end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.asking", str(plan), stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _ASKING_TIMEOUT_S)
    except TimeoutError as error:
        raise BenchError("those who ask did not come to an end") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise BenchError(f"those who ask ended with {process.returncode}")
    return Told.model_validate_json(output)


async def _until_ready(running: Running, settings: Settings) -> None:
    """Raises `BenchError` for a process that does not become ready."""
    url = f"http://127.0.0.1:{settings.http_port}/health/ready"
    async with aiohttp.ClientSession() as session:

        async def ready() -> bool:
            if any(process.returncode is not None for process in running.processes):
                raise running.failed("ended before it was ready")
            try:
                async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                    return answer.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        if not await until(ready, _READY_TIMEOUT_S, _POLL_S):
            raise running.failed(f"not ready within {_READY_TIMEOUT_S:g} s")
