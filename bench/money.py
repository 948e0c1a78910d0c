"""Measures how fast transfers are executed that are accepted already."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bench import backlog
from bench.ledger import Ledger, TransferRequested
from bench.rows import CELERY, TRANSFER_TASKS, TRANSFER_TASKS_HOT, WALLET_HOT, Contender
from bench.running import Runner

_WALLET = "wallet"
"""As its subscriber is called."""


@dataclass(frozen=True, slots=True)
class Money:
    """The wallet, and tasks of Celery, on the tables of one ledger."""

    runner: Runner
    ledger: Ledger
    dsn: str

    async def measure(
        self, contender: Contender, channel: str, count: int, seed: str, advance: backlog.Advance
    ) -> float:
        """Transfers per second. Raises `BenchError` when one is not done once, or a balance is wrong."""
        hot = contender.name in (WALLET_HOT, TRANSFER_TASKS_HOT)
        accepted = await self.ledger.accept(count, hot=hot, seed=seed)
        wanted = backlog.subscription(TransferRequested.channel, _WALLET, TransferRequested.event_type)
        if by_tasks := contender.name in (TRANSFER_TASKS, TRANSFER_TASKS_HOT):
            settings = self.runner.settings["rabbit"]
            await asyncio.to_thread(backlog.fill_tasks, settings, f"{CELERY}.{channel}", accepted, advance)
        else:
            settings = self.runner.settings[contender.broker]
            await backlog.fill(settings, wanted, accepted.events, advance)
        async with self.runner.running(contender, channel, {"TANDEM_POSTGRES_DSN": self.dsn}) as running:
            await running.until(count, self.ledger.count, advance, what="transfers")
        problems = await self.ledger.problems()
        if not by_tasks and (left := await backlog.unsettled(settings, wanted)):
            problems.append(f"{left} events not settled")
        if problems:
            raise running.failed(", ".join(problems))
        return await self.ledger.rate_per_s()
