"""The real servers, once per session, on ports and data of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.native import Ports, Runtime


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """PostgreSQL, Redis, RabbitMQ and Kafka."""
    runtime = Runtime(tmp_path_factory.mktemp("servers"), Ports.free_block())
    try:
        runtime.start_servers()
        yield runtime
    finally:
        runtime.stop(remove=True)
