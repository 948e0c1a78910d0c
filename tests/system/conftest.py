"""The whole system, started once on each broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from deploy.native import Runtime
from tests.system.running_system import RunningSystem


@pytest.fixture(scope="session", params=["rabbit", "kafka"])
async def system(request: pytest.FixtureRequest, servers: Runtime) -> AsyncIterator[RunningSystem]:
    """All services on one broker, with databases, ports and names of their own."""
    settings = {"TANDEM_SMTP_URL": servers.server_urls()["mail"], "TANDEM_BREAKER_OPEN_S": "5"}
    await asyncio.to_thread(servers.start_services, request.param, instance=request.param, env_overrides=settings)
    running = RunningSystem(servers, request.param)
    running.expected_dead_letters.update(letter.body for letter in await running.dead_letters())
    try:
        yield running
    finally:
        await running.http.aclose()
        await asyncio.to_thread(servers.stop_services, request.param)
