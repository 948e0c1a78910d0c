"""How the suite runs in several workers: how many, which tests stay together, and who comes first.

Every worker has servers of its own (the fixture `servers`, started when a test first asks for it), so that no test
is disturbed by one that stops a server. What would be started twice stays together instead: a *unit* is run by one
worker, in the order of the files. The suite waits more than it computes; hence more workers than cores.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

WORKERS_MAX = 8
WORKERS_PER_CORE = 2.5
WORKER_MEMORY_BYTES = 3 * 2**30
"""A worker with its servers and, for the system tests, every service."""

ONE_BY_ONE = (
    "tests/conformance/test_conformance.py",
    "tests/contributing/test_recipes.py",
    "tests/faults/test_clusters.py",
    "tests/faults/test_short_form.py",
    "tests/integration/test_deploy_runtime.py",
    "tests/integration/test_event_stream.py",
    "tests/integration/test_poison.py",
    "tests/integration/test_relay.py",
)
"""Long modules whose tests have nothing in common but the servers: each test is a unit."""

SYSTEM = re.compile(r"^tests/system/.*\[(rabbit|kafka)")
"""All services are started once on each broker."""

OBJECTS = ("tests/integration/test_archive.py", "tests/integration/test_large_results.py")
"""The object storage is started once."""

LONGEST_FIRST = (
    "tests/system/test_mail.py",
    "tests/system",
    "tests/faults/test_planted.py",
    "tests/compare/test_command.py",
    "tests/compare/test_own_brokers.py",
    "tests/conformance/test_broken_adapters.py",
    "tests/faults/test_clusters.py",
    "tests/faults/test_short_form.py",
    "tests/integration/test_bench_tiny.py",
    "tests/integration/test_hostile_http.py",
    "tests/integration/test_migrations.py",
)
"""What would keep everybody waiting if it were started last."""
NEEDS_ROOM = ("tests/faults/test_short_form.py::test_one_fault_on_each_broker",)
"""What judges how soon a system recovers: beside it runs only what gives way."""
GIVES_WAY_LAST = ("tests/architecture", "tests/contributing", "tests/unit")
"""What computes and hardly waits, so that it fills gaps: the others' processes come before its own (`nice`)."""
NICENESS = 5


def unit_of(nodeid: str) -> str:
    """The name of the unit that a test belongs to."""
    system = SYSTEM.match(nodeid)
    if system:
        return f"tests/system[{system[1]}]"
    module = nodeid.partition("::")[0]
    if module in OBJECTS:
        return OBJECTS[0]
    return nodeid if module in ONE_BY_ONE else module


def rank(nodeid: str) -> int:
    """Sorts tests by when their unit is to be started."""
    if nodeid.startswith(NEEDS_ROOM):
        return len(LONGEST_FIRST) + 1
    for place, prefix in enumerate(LONGEST_FIRST):
        if nodeid.startswith(prefix):
            return place
    return len(LONGEST_FIRST) + 2 * gives_way(nodeid)


def gives_way(nodeid: str) -> bool:
    """Whether a test leaves the cores to whatever else wants them; nothing else comes after it in its worker."""
    return nodeid.startswith(GIVES_WAY_LAST)


def workers() -> int:
    """As many as cores and memory have room for."""
    cores = len(os.sched_getaffinity(0))
    room = psutil.virtual_memory().total // WORKER_MEMORY_BYTES
    return max(1, min(WORKERS_MAX, int(WORKERS_PER_CORE * cores), room))


class Units(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Gives whole units to the workers, in the order of the collection."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests in the order in which their units are given out."""
    return sorted(items, key=lambda item: rank(item.nodeid))
