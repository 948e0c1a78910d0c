"""A world per test: `world` on each broker, `rabbit_world` and `kafka_world` on one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from deploy.native import Ports, Runtime
from tests.conftest import start_in_turn
from tests.integration.world import World


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[World]:
    async with world.stack:
        await world.open()
        yield world


@pytest.fixture(scope="session")
def object_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A server of its own: few tests need one, and those are one unit of the suite."""
    runtime = Runtime(tmp_path_factory.mktemp("objects"), Ports.free_block(), servers=["objects"])
    try:
        with start_in_turn(tmp_path_factory):
            runtime.start_servers()
        yield runtime
    finally:
        runtime.stop(remove=True)


@pytest.fixture(params=["rabbit", "kafka"])
async def world(request: pytest.FixtureRequest, servers: Runtime) -> AsyncIterator[World]:
    """The test runs once on each broker."""
    async with opened(World(servers, request.param)) as world:
        yield world


@pytest.fixture
async def rabbit_world(servers: Runtime) -> AsyncIterator[World]:
    """For what does not depend on the broker, or on RabbitMQ alone."""
    async with opened(World(servers, "rabbit")) as world:
        yield world


@pytest.fixture
async def kafka_world(servers: Runtime) -> AsyncIterator[World]:
    """For what only Kafka does."""
    async with opened(World(servers, "kafka")) as world:
        yield world
