"""What CONTRIBUTING.md tells people to do works when it is done as it says, in a copy of the repository."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from deploy.native import Runtime
from deploy.paths import REPOSITORY
from shared.broker.base import Message
from shared.broker.connect import create_broker
from shared.envelope import Envelope
from shared.settings import Settings
from tests.contributing.recipes import Scratch
from tests.system.running_system import eventually

pytestmark = pytest.mark.timeout(600)  # each starts Python several times, on a machine that may be busy

HERE = Path(__file__).parent
HELPER = "tests.contributing.in_the_copy"
PAID = REPOSITORY / "tests" / "unit" / "golden" / "order.paid.1.json"


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / "tandem")


def run_tests(scratch: Scratch, *arguments: str) -> str:
    """Some of the tests, in the copy and in one process."""
    return scratch.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)


def assert_in_good_style(scratch: Scratch) -> None:
    """What `make check` says of it, without types; of the files that the recipe did not touch it has said it."""
    written = sorted(path for path in scratch.written if path.endswith(".py"))
    scratch.python("-m", "ruff", "check", "-q", "--no-cache", *written)
    scratch.python("-m", "ruff", "format", "-q", "--no-cache", "--check", *written)
    scratch.python("-c", "from importlinter.cli import lint_imports_command as c; c(['--no-cache', '--no-logo'])")


def test_a_new_event_type_is_published_and_read(scratch: Scratch) -> None:
    write_sample, test = scratch.follow("A new event type")
    samples = {path.name for path in (scratch.root / "tests/unit/golden").iterdir()}

    assert scratch.python(*shlex.split(write_sample)[1:]) == "wrote order.invoiced.1.json\n"
    assert {path.name for path in (scratch.root / "tests/unit/golden").iterdir()} - samples == {
        "order.invoiced.1.json"
    }
    [_, _, arguments] = shlex.split(test)
    passed = run_tests(scratch, "-rp", arguments.removeprefix("ARGS="))
    for claim in (
        "reads_the_golden_sample[order.invoiced.1]",
        "reads_what_is_published_today[order-order.invoiced]",
    ):
        assert f"PASSED tests/unit/test_event_contracts.py::test_every_consumer_{claim}" in passed
    assert_in_good_style(scratch)


async def test_a_new_service_is_one_row_and_its_folder(scratch: Scratch, servers: Runtime) -> None:
    render, check, test = await asyncio.to_thread(scratch.follow, "A new service")
    assert (check, test) == ("make check", "make test")  # of which this test runs what concerns a new service

    written = await asyncio.to_thread(scratch.make, render)
    assert {line.removeprefix("written: ") for line in written.splitlines()} == {
        "deploy/compose/compose.yml",
        "deploy/compose/create-databases.sh",
    }
    await asyncio.to_thread(assert_in_good_style, scratch)
    await asyncio.to_thread(
        run_tests,
        scratch,
        *(f"tests/architecture/test_{part}.py" for part in ("agreement", "rendered", "compose_files")),
        "tests/unit/test_event_contracts.py",
    )

    order = Envelope.decode(PAID.read_bytes())
    async with parcels(scratch, servers) as (service, database):
        settings = settings_of(service)
        async with create_broker(settings, "recipes") as broker:
            await broker.declare(("order",))
            message = Message("order", order.type, order.key, PAID.read_bytes())
            assert await broker.publish([message, message]) == []

        async def packed() -> list[str]:
            return [row["label"] for row in await database.fetch("select label from parcel")]

        assert await eventually(packed, "a parcel is packed") == [f"order {order.subject}"]


@asynccontextmanager
async def parcels(
    scratch: Scratch, servers: Runtime
) -> AsyncIterator[tuple[dict[str, str], asyncpg.Connection[Any]]]:
    """The one service of the recipe on the session's servers: its settings, and its database."""
    said = await asyncio.to_thread(scratch.python, "-m", HELPER, "environment", str(servers.root), "parcel")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # those of the instance belong to the other tests' services
    service = {**json.loads(said), "TANDEM_HTTP_PORT": str(port)}
    dsn = service["TANDEM_POSTGRES_DSN"]
    name = dsn.rpartition("/")[2]
    assert name.endswith("_parcel")
    await asyncio.to_thread(servers.ensure_databases, [name])
    environment = {**os.environ, **service}
    migrated = await asyncio.to_thread(scratch.python, "-m", "shared.migrate", "parcel", environment=environment)
    assert migrated == "parcel: schema 0001, was empty\n"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.parcel.app", cwd=scratch.root, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        await eventually(lambda: ready(port), "the service is ready")
        database = await asyncpg.connect(dsn)
        try:
            yield service, database
        finally:
            await database.close()
        process.terminate()
        # uvicorn passes the signal on once the service has stopped in good order.
        assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGTERM
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        # Or it would fill with what later tests publish.
        await asyncio.to_thread(servers.rabbitmqctl, "delete_queue", "parcel.order")


async def ready(port: int) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            return (await client.get(f"http://127.0.0.1:{port}/health/ready", timeout=5)).status_code == 200
    except httpx.HTTPError:
        return False


def settings_of(service: dict[str, str]) -> Settings:
    return Settings(
        broker="rabbit",
        http_port=1,
        postgres_dsn=service["TANDEM_POSTGRES_DSN"],
        redis_url=service["TANDEM_REDIS_URL"],
        rabbit_url=service["TANDEM_RABBIT_URL"],
    )


CHECKS = (
    "check_what_is_confirmed_is_delivered_once",
    "check_bytes_and_headers_arrive_as_sent",
    "check_one_key_keeps_its_order",
    "check_callers_publish_at_the_same_time",
    "check_messages_wait_for_a_declared_subscriber",
)


def with_adapter(scratch: Scratch) -> Scratch:
    """The recipe followed, with stand-ins for the two files that are work: the adapter, and its server."""
    adapter = scratch.root / "shared/broker/nats"
    adapter.mkdir()
    (adapter / "__init__.py").write_text(
        """\
from shared.broker.nats.adapter import NatsAdapter

__all__ = ["NatsAdapter"]
"""
    )
    shutil.copy(HERE / "nats_adapter.py", adapter / "adapter.py")
    shutil.copy(HERE / "nats_server.py", scratch.root / "deploy/native/servers/nats.py")
    adapter_files = ("shared/broker/nats/__init__.py", "shared/broker/nats/adapter.py")
    scratch.written |= {*adapter_files, "deploy/native/servers/nats.py"}
    docs, suite = scratch.follow("A new broker adapter")
    scratch.make(docs)
    assert "TANDEM_NATS_URL" in (scratch.root / "docs/settings.md").read_text()
    assert suite == 'make test ARGS="tests/conformance -k nats"'  # of which the tests below run a few checks
    return scratch


def test_a_new_broker_adapter_is_known_to_all_and_is_held_to_the_suite(scratch: Scratch, tmp_path: Path) -> None:
    with_adapter(scratch)

    collected = run_tests(scratch, "--collect-only", "tests/conformance/test_conformance.py", "-k", "nats")
    assert "[nats-what_is_confirmed_is_delivered_once]" in collected
    held = scratch.python("-m", HELPER, "conformance", str(tmp_path / "nobody"), "nats", *CHECKS)
    assert set(json.loads(held)) == set(CHECKS)
    assert_in_good_style(scratch)


def test_a_new_broker_adapter_that_breaks_its_obligation_is_caught(scratch: Scratch, tmp_path: Path) -> None:
    adapter = with_adapter(scratch).root / "shared/broker/nats/adapter.py"
    sound = adapter.read_text()
    assert sound.count("queue.messages.append(message)") == 1
    adapter.write_text(sound.replace("queue.messages.append(message)", "queue.messages.appendleft(message)"))

    with pytest.raises(AssertionError, match="out of order"):
        scratch.python("-m", HELPER, "conformance", str(tmp_path / "nobody"), "nats", *CHECKS)


def test_a_new_fault_is_listed_and_played(scratch: Scratch, servers: Runtime) -> None:
    alone, whole = scratch.follow("A new fault")
    assert whole == "make faults"
    [_, _, arguments] = shlex.split(alone)
    [_, name] = arguments.removeprefix("ARGS=").split()

    assert name in scratch.python("-m", "faults", "--help")
    # Without the load and the check of every event, which tests/faults has of the whole command.
    played = json.loads(scratch.python("-m", HELPER, "fault", str(servers.root), name))

    assert played["seen"] == ["sleeping", "stopped", "sleeping"]
    assert played["lasted_s"] >= 2
    assert servers.processes.is_healthy("postgres")
    assert_in_good_style(scratch)
