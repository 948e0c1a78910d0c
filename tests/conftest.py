"""The real servers, once per session, on ports and data of their own; and how the session is run."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
import structlog
from aio_pika import RobustConnection
from xdist.workermanage import NodeManager

from deploy.native import BrokerName, Ports, Runtime
from deploy.native.install.install import ensure_installed
from deploy.native.processes import run_async
from deploy.native.supervision import FORKS_VARIABLE
from deploy.progress import Steps
from deploy.topology import SERVERS, USUAL_SERVERS
from shared.garbage import collect_seldom, rest_garbage_collector
from tests import scheduling
from tests.browser import ensure_browser
from tests.conformance.matrix import pytest_runtest_logreport, pytest_terminal_summary
from tests.spared import spare_logs, spare_postgresql

__all__ = ["pytest_runtest_logreport", "pytest_terminal_summary"]

collect_seldom()
spare_logs()
# Kafka is started some twenty times and lives for minutes: compiled with less effort it needs half the CPU.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
# Services are forked from a supervisord that has imported what they need: a start costs a tenth. What runs in
# another checkout is started as ever; so is everything with TANDEM_FORK_SERVICES=0.
os.environ.setdefault(FORKS_VARIABLE, "1")

STARTING_MAX = 2
CLIENT_CLOSE_S = 5.0
WORKER_EXIT_S = 30
"""When a run is interrupted each worker still stops its servers and removes their data."""


@pytest.fixture(autouse=True)
def logged_as_before() -> Iterator[None]:
    """Whatever a tool that was called in this process has decided for its own."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@contextmanager
def start_in_turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two workers at a time start servers or services: all at once, each would take minutes, and some too long.
    One alone would leave a core idle: what it starts waits as much as it computes."""
    place = tmp_path_factory.getbasetemp().parent
    with ExitStack() as stack:
        turns = [stack.enter_context((place / f"starting-{n}.lock").open("w")) for n in range(STARTING_MAX)]
        while not any(_taken(turn) for turn in turns):
            time.sleep(0.1)
        yield


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Servers, on ports and data of their own; nothing is left of them afterwards."""
    runtime = Runtime(tmp_path_factory.mktemp("servers"), Ports.free_block())
    try:
        with start_in_turn(tmp_path_factory):
            runtime.start_servers()
        run_async(lambda: spare_postgresql(runtime))
        yield runtime
    finally:
        with uninterrupted():
            runtime.stop(remove=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Further interrupts change nothing: impatient people press twice, and pytest-xdist does so by itself."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """PostgreSQL, Redis, RabbitMQ, Kafka and mail: every worker's own, or those in TANDEM_TEST_SERVERS."""
    if root := os.environ.get("TANDEM_TEST_SERVERS"):
        yield Runtime.attach(Path(root))
        return
    with started(tmp_path_factory) as runtime:
        yield runtime


@pytest.fixture(scope="session", autouse=True)
async def no_client_outlives_the_loop() -> AsyncIterator[None]:
    """A connection that aio-pika was cancelled in the midst of making goes on by itself, and is deaf to being
    cancelled again: the session's event loop would wait for it for ever."""
    yield
    # By type: `issubclass` would ask an abstract class about everything, and take twice as long.
    kinds = {RobustConnection, *RobustConnection.__subclasses__()}
    left = [one for one in gc.get_objects() if type(one) in kinds]
    await asyncio.gather(*(asyncio.wait_for(one.close(), CLIENT_CLOSE_S) for one in left), return_exceptions=True)


ServersFor = Callable[..., AbstractContextManager[Runtime]]


@pytest.fixture(scope="session")
def servers_for(servers: Runtime, tmp_path_factory: pytest.TempPathFactory) -> ServersFor:
    """Servers where none of these sets of services has ever run, so that nothing of one is left there.

    The first who asks for a set gets the worker's own servers, another one new ones. The sets are named after
    their brokers, and stopped in the end.
    """
    used: set[BrokerName] = set()

    @contextmanager
    def servers_for(*brokers: BrokerName) -> Iterator[Runtime]:
        if used.isdisjoint(brokers):
            used.update(brokers)
            try:
                yield servers
            finally:
                for broker in brokers:
                    servers.stop_services(broker)
        else:
            with started(tmp_path_factory) as others:
                yield others

    return servers_for


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install what is missing now, once for all workers: within the time of a test it would not fit."""
    if session.config.option.collectonly:
        return
    rest_garbage_collector()  # all that was imported and collected stays
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if "servers" in wanted:
        ensure_installed(SERVERS if "object_storage" in wanted else USUAL_SERVERS, Steps())
    if any("browser" in getattr(item, "fixturenames", ()) for item in session.items):
        ensure_browser(Steps())


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """What `-n auto` means; `-n logical` is one for each core."""
    chosen = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    return scheduling.workers() if config.option.numprocesses == "auto" and not chosen else None


def pytest_configure() -> None:
    NodeManager.EXIT_TIMEOUT = WORKER_EXIT_S


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> scheduling.Units:
    return scheduling.Units(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if hasattr(item.config, "workerinput") and scheduling.gives_way(item.nodeid):
        os.setpriority(os.PRIO_PROCESS, 0, scheduling.NICENESS)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items[:] = scheduling.in_order(items)
