"""A server that crashes is started again by its supervisor; a comparison notices, and does not measure over it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from experiment.side import StalledError
from tests.compare.test_judgement import APART, run_result


class Servers:
    """Stands for supervisor: each server is a real process, which sleeps."""

    def __init__(self) -> None:
        self.by_name: dict[str, subprocess.Popen[bytes]] = {}

    def pids(self, name: str) -> list[int]:
        process = self.by_name.get(name) or self.start(name)
        return [process.pid] if process.poll() is None else []

    def start(self, name: str) -> subprocess.Popen[bytes]:
        self.by_name[name] = subprocess.Popen(["sleep", "60"])
        return self.by_name[name]

    def kill(self, name: str) -> None:
        self.by_name[name].kill()
        self.by_name[name].wait()


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    for name in made.by_name:
        made.kill(name)


@pytest.mark.parametrize("name", ["rabbit", "postgres"])
async def test_a_server_that_ended_ends_the_run_even_when_it_is_there_again(
    tmp_path: Path, servers: Servers, name: str
) -> None:
    side = run_result(tmp_path, APART).sides["rabbit"].side
    side.runtime.processes = cast(Any, servers)
    await side.usage()
    await side.usage()
    servers.kill(name)
    ended = {"rabbit": "RabbitMQ", "postgres": "PostgreSQL"}[name] + " ended in the middle of the run"
    with pytest.raises(StalledError, match=f"{ended}, and is not started again yet"):
        await side.usage()
    servers.start(name)
    with pytest.raises(StalledError, match=f"{ended}, and was started again"):
        await side.usage()
