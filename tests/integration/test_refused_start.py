"""A process that its broker refuses says so in one sentence and ends; one whose broker is away waits."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT, Process

import orjson
import pytest
from yarl import URL

from deploy.paths import REPOSITORY
from tests.held_ports import held_port
from tests.integration.world import SUBSCRIBER, World

BAD_CONFIGURATION = 78
"""EX_CONFIG of sysexits.h, as for settings that are wrong in themselves."""


async def started(world: World, service: str, rabbit_url: URL) -> Process:
    """A consumer process of the service as it is."""
    values = {
        **world.setting_values(rabbit_url=rabbit_url, connect_timeout_s=2.0, shutdown_grace_s=5.0),
        "http_port": held_port(),
        "roles": "consumer",
        "dead_letter_subscriptions": f"{SUBSCRIBER}.{world.channel}",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM_")}
    environment |= {f"TANDEM_{name.upper()}": str(value) for name, value in values.items()}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"services.{service}.app",
        env=environment, cwd=REPOSITORY, stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip


@pytest.mark.parametrize("service", ["notification", "dead_letter"])
async def test_a_wrong_password_ends_the_start_with_one_sentence(rabbit_world: World, service: str) -> None:
    url = URL(rabbit_world.settings().rabbit_url or "")
    process = await started(rabbit_world, service, url.with_password("mistaken"))
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == BAD_CONFIGURATION, said.decode()
    lines = [orjson.loads(line) for line in said.splitlines() if line.startswith(b"{")]
    [refused] = [line for line in lines if line["event"] == "process.refused"]
    assert "ACCESS_REFUSED" in refused["error"]
    assert "\n" not in refused["error"]
    assert b"Traceback" not in said
    assert b"mistaken" not in said, "the password itself is nobody's business"


async def test_a_broker_that_is_away_is_waited_for(rabbit_world: World) -> None:
    nobody = URL(f"amqp://a:b@127.0.0.1:{held_port()}/")
    process = await started(rabbit_world, "notification", nobody)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            for _ in range(2):
                while b"process.waiting" not in await process.stdout.readline():
                    pass
        assert process.returncode is None
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), 30)
