"""What is done with the processes of a contender."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from bench import start_up
from bench.errors import BenchError
from bench.rows import PAIR, Contender
from bench.running import Running
from experiment.clock import until


async def test_a_process_that_has_ended_has_no_peak_of_memory(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    running = Running(Contender(PAIR, "kafka"), (process,), tmp_path / "log")
    running.log.touch()
    assert 0 < running.peak_mib() < 100
    process.kill()
    await process.wait()
    with pytest.raises(BenchError, match="ended by itself"):
        running.peak_mib()


async def test_frozen_processes_stand_still_and_go_on_afterwards(tmp_path: Path) -> None:
    processes = [await asyncio.create_subprocess_exec("sleep", "60") for _ in range(2)]
    running = Running(Contender(PAIR, "kafka"), tuple(processes), tmp_path / "log")

    def standing() -> list[bool]:
        return [psutil.Process(process.pid).status() == psutil.STATUS_STOPPED for process in processes]

    async def all_stand() -> bool:
        return all(standing())

    async def none_stands() -> bool:
        return not any(standing())

    try:
        with running.frozen():
            assert await until(all_stand, 5, 0.01)
        assert await until(none_stands, 5, 0.01)
    finally:
        for process in processes:
            process.kill()
            await process.wait()


async def test_a_start_that_takes_too_long_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_up, "_TIMEOUT_S", 0.01)
    with pytest.raises(BenchError, match=r"^kafka is not up after 0\.01 s$"):
        await start_up.to_first_effect_s("kafka", tmp_path)
