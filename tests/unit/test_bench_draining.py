"""When those that drain a backlog are woken, and what is looked at meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from bench import backlog
from bench.draining import Draining
from bench.errors import BenchError
from bench.rows import ALONE, Contender
from bench.running import Running
from experiment.clock import until

CONTENDER = Contender(ALONE, "kafka")


class Bench:
    """Draining by a process that sleeps; the backlog is put down in a list, and has its effects at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
        self.done: list[str] = []
        self.is_kept = True
        self._log = log
        monkeypatch.setattr(backlog, "until_consumed", self._joined)
        monkeypatch.setattr(backlog, "are_consuming", self._are_consuming)
        monkeypatch.setattr(backlog, "fill", self._fill)
        runner: Any = SimpleNamespace(settings={"kafka": None}, running=self._running)
        effects: Any = SimpleNamespace(count=self._count)
        self.draining = Draining(runner, effects, effects)

    @asynccontextmanager
    async def _running(self, contender: Contender, _channel: str) -> AsyncIterator[Running]:
        process = await asyncio.create_subprocess_exec("sleep", "60")
        self._log.touch()
        self._process = psutil.Process(process.pid)
        try:
            yield Running(contender, (process,), self._log)
        finally:
            process.kill()
            await process.wait()

    async def _joined(self, *_asked: object) -> bool:
        self.done.append("joined")
        return True

    async def _fill(self, *_asked: object) -> None:
        assert await until(self._stands, 5, 0.01)
        self.done.append("filled")

    async def _stands(self) -> bool:
        return self._process.status() == psutil.STATUS_STOPPED

    async def _are_consuming(self, *_asked: object) -> bool:
        return self.is_kept

    async def _goes_on(self) -> bool:
        return not await self._stands()

    async def _count(self) -> int:
        assert await until(self._goes_on, 5, 0.01)
        self.done.append("counted")
        return 2

    def look(self, _running: Running) -> bool:
        """Takes note, and says whether the process stands still."""
        self.done.append("looked")
        return self._process.status() == psutil.STATUS_STOPPED

    async def woken(self) -> tuple[Running, bool, bool]:
        events: Any = ["one", "two"]
        subscription = backlog.subscription("thing", "alone")
        return await self.draining.woken(CONTENDER, subscription, events, lambda _count: None, self.look)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    return Bench(monkeypatch, tmp_path / "log")


async def test_it_is_looked_when_all_is_there_and_nobody_awake_and_when_all_is_done(bench: Bench) -> None:
    _, stood_at_waking, stands_at_the_end = await bench.woken()
    assert bench.done == ["joined", "filled", "looked", "counted", "looked"]
    assert stood_at_waking
    assert not stands_at_the_end


async def test_one_that_the_broker_gave_up_meanwhile_is_not_measured(bench: Bench) -> None:
    bench.is_kept = False
    with pytest.raises(BenchError, match="frozen for longer"):
        await bench.woken()
    assert "looked" not in bench.done
