"""Connections to PostgreSQL: HTTP has its own beside other work, and the server takes all that there may be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.native.servers import postgres
from deploy.paths import REPOSITORY
from deploy.topology import PROCESSES
from services.wallet.app import SERVICE
from shared.settings import Settings
from tests.unit.unserved import unserved

_KEPT_FOR_SUPERUSERS = 3
_OTHER_SESSIONS = 25
"""Of relays, consumers that hear directly, schedules, `make audit` and people."""


@pytest.mark.parametrize(
    ("roles", "own"), [("api,relay,consumer", True), ("api,worker", True), ("api,relay", False), ("api", False)]
)
def test_http_has_connections_of_its_own_where_the_process_also_consumes_or_works(roles: str, own: bool) -> None:
    parts = unserved(SERVICE, roles=roles.split(","))
    of_http = parts.for_http()
    assert (of_http.database is not parts.database) is own
    assert of_http.units is not parts.units
    assert of_http.broker is parts.broker


def test_the_servers_take_the_connections_of_all_processes() -> None:
    most = Settings.model_fields["postgres_pool_max"].default
    pools = 0
    for process in PROCESSES:
        roles = set(process.roles.split(","))
        pools += 2 if "api" in roles and roles & {"consumer", "worker"} else 1
    needed = pools * most + _OTHER_SESSIONS + _KEPT_FOR_SUPERUSERS
    for path in (Path(postgres.__file__), REPOSITORY / "deploy/compose/compose.yml"):
        found = re.search(r"max_connections ?= ?(\d+)", path.read_text())
        assert found is not None, path
        assert needed <= int(found[1]), path
