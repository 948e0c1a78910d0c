"""What every runtime of the whole can do, and what a status is."""

from __future__ import annotations

from typing import Any, Protocol

from deploy.show.traces import Found
from deploy.topology import BrokerName

Status = dict[str, Any]
"""`broker` and `runtime` (None when nothing is up); `services` and `servers`, each name to `url`, `pids` and
`healthy`; `mails`, where there is a mail server: where it keeps them. What `make status FORMAT=json` prints."""


class Stack(Protocol):
    """The whole system, as `make up-*` starts it, in one runtime. Its errors are DeployError, a sentence each."""

    def broker(self) -> BrokerName | None:
        """The broker that it is up on; None when it is down."""

    def nodes(self) -> int | None:
        """Of how many nodes the broker consists that is up; None where whoever started it decided that alone."""

    def up(self, broker: BrokerName, nodes: int) -> None:
        """Start everything and wait until it answers; on failure nothing is left running."""

    def down(self, *, volumes: bool) -> bool:
        """Stop everything, and with `volumes` delete its data; False when nothing was up."""

    def status(self) -> Status | None:
        """What runs and whether it answers; None when nothing does."""

    def print_logs(self, name: str | None, *, follow: bool, lines: int) -> int:
        """Print the last lines of every log, or of a service's or a server's; returns the exit code."""

    def traces(self, wanted: str) -> Found:
        """The traces in which an id occurs."""

    def service_url(self, service: str) -> str:
        """HTTP base URL of a service."""

    def run_module(self, service: str, *words: str) -> int:
        """Run `python -m` with these words as a process of the service would; it prints to our own output.

        Returns its exit code.
        """

    def broker_settings(self) -> dict[str, str]:
        """Which broker is up and the address of its every node, as settings for `Settings.from_environment`."""


def nothing_up() -> Status:
    """The status when nothing is up."""
    return {"broker": None, "runtime": None, "services": {}, "servers": {}}


def is_healthy(status: Status) -> bool:
    """Whether something is up and every part of it answers."""
    parts = [*status["services"].values(), *status["servers"].values()]
    return status["broker"] is not None and all(part["healthy"] for part in parts)
