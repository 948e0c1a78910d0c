"""The whole system, started once on each broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from deploy.native import BrokerName
from tests.conftest import ServersFor, start_in_turn
from tests.scheduling import unit_of
from tests.spared import FEW_PARTITIONS
from tests.system.house import ADMIN_PASSWORD, GATEWAY_TOKEN, House
from tests.system.running_system import RunningSystem


@pytest.fixture(scope="session", params=["rabbit", "kafka"])
async def system(
    request: pytest.FixtureRequest, servers_for: ServersFor, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSystem]:
    """All services on one broker, with databases, ports and names of their own; they send no mail."""
    broker: BrokerName = request.param
    with servers_for(broker) as servers:
        settings = {
            "TANDEM_SMTP_URL": "",
            "TANDEM_BREAKER_OPEN_S": "5",
            "TANDEM_TRANSFER_DELAY_S": "0.2",
            **FEW_PARTITIONS,
            "TANDEM_WALLET_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "TANDEM_WALLET_GATEWAY_TOKEN": GATEWAY_TOKEN,
        }
        with start_in_turn(tmp_path_factory):
            await asyncio.to_thread(servers.start_services, broker, instance=broker, env_overrides=settings)
        running = RunningSystem(servers, broker)
        running.expected_dead_letters.update(letter.body for letter in await running.dead_letters())
        try:
            yield running
        finally:
            await running.aclose()


@pytest.fixture
async def house(system: RunningSystem) -> AsyncIterator[House]:
    """The wallet of the system, opened."""
    async with AsyncExitStack() as stack:
        house = House(system, stack)
        await house.open()
        yield house


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """The services end after their last test, not with the session: idle ones would cost a sixth of a core."""
    yield
    system: RunningSystem | None = getattr(item, "funcargs", {}).get("system")
    if system is not None and (nextitem is None or unit_of(nextitem.nodeid) != unit_of(item.nodeid)):
        system.runtime.stop_services(system.broker_name)
