"""An instance whose servers run in containers, and whose services run as processes here."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from typing import Any

from deploy.errors import StartError
from deploy.native import Ports, Runtime
from deploy.native.servers import table
from deploy.progress import Steps
from deploy.topology import BROKERS, BrokerName, ServerName
from experiment.containers.contained import Contained
from experiment.containers.engine import Account, Engine
from experiment.disk import FLUSHES

_READY_TIMEOUT_S = 120.0
_POLL_S = 0.5


class ContainerRuntime(Runtime):
    """As the native one; but its servers are started, and ended, by whoever made the containers."""

    def __init__(self, root: Path, contained: Contained, engine: Engine, steps: Steps) -> None:
        super().__init__(
            root,
            Ports(contained.block),
            servers=(),
            steps=steps,
            durability=contained.durability,
            password=contained.password,
        )
        self.contained = contained
        self._engine = engine
        self._highest: dict[ServerName, int] = {}

    def start_servers(self) -> None:
        """Wait until every server does real work. Raises StartError with the last lines of one that has ended."""
        self._inventory.save()
        self._supervisor.launch(self._watched_parent)
        cancelled = Event()
        with ThreadPoolExecutor(max_workers=len(self.contained.names)) as pool:
            waits = [pool.submit(self._await, server, cancelled) for server in self.contained.names]
            try:
                for done in as_completed(waits):
                    done.result()
            except BaseException:
                cancelled.set()
                raise

    def versions(self) -> dict[str, str]:
        """Of the servers, by their images."""
        return dict(self.contained.versions)

    def server_settings(self) -> dict[str, Any]:
        """What each server was told, by its own names."""
        return {str(name): told for name, told in self.contained.settings.items()}

    def facts(self) -> dict[str, Any]:
        """What a report says of the containers, and which figures of cost cannot be measured in them."""
        unknown = sorted(name for name, each in self.accounts().items() if each.written_bytes is None)
        parts = {"broker" if name in BROKERS else name for name in unknown} & {"broker", "postgres"}
        return {
            "containers": {
                "engine": self.contained.engine,
                **{name: limits.model_dump() for name, limits in self.contained.limits.items()},
            },
            "not_measured": [
                *(f"{part}_bytes_written_per_event" for part in sorted(parts)),
                "broker_log_growth_bytes_per_event",
                *FLUSHES,
            ],
        }

    def accounts(self) -> dict[ServerName, Account]:
        """What every server has used; as its memory, the highest that was seen since `forget_highest`.

        The engine looks at all of them once a second, and answers all who asked since: at the time of its look.
        """
        names = self.contained.names
        with ThreadPoolExecutor(max_workers=len(names)) as pool:
            told = dict(zip(names, pool.map(self._engine.account, names.values()), strict=True))
        return {
            server: Account(each.cpu_s, self._higher(server, each.memory_bytes), each.written_bytes)
            for server, each in told.items()
        }

    def forget_highest(self, broker: BrokerName) -> None:
        """Begin anew with the broker's highest memory."""
        self._highest.pop(broker, None)

    def _higher(self, server: ServerName, memory_bytes: int | None) -> int | None:
        if memory_bytes is not None:
            self._highest[server] = max(memory_bytes, self._highest.get(server, 0))
        return self._highest.get(server)

    def _await(self, server: ServerName, cancelled: Event) -> None:
        title = table.SERVERS_BY_NAME[server].title
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self.processes.is_healthy(server):
            if why := self._engine.ended(self.contained.names[server]):
                raise StartError(f"the container of {title} does not run: {why}")
            if time.monotonic() >= deadline:
                raise StartError(f"{title} did not become ready in its container within {_READY_TIMEOUT_S:.0f} s")
            if cancelled.wait(_POLL_S):
                return
