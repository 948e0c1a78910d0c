"""A world per test: `world` on each broker, `rabbit_world` and `kafka_world` on one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from deploy.native import Runtime
from tests.integration.world import World


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[World]:
    async with world.stack:
        await world.open()
        yield world


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
