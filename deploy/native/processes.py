"""The processes of an instance, one at a time: started, stopped, killed, asked and waited for."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from deploy.native import service_set as services
from deploy.native.inventory import Inventory
from deploy.native.ports import Ports
from deploy.native.readiness import Probe, await_ready, http_probe
from deploy.native.servers import table
from deploy.native.supervision import Supervisor
from deploy.progress import Steps

# Generous, since a loaded machine is slow and a process that crashes is noticed at once.
READY_TIMEOUT_S = 120.0
_HEALTH_TIMEOUT_S = 10.0
_KILLED_TIMEOUT_S = 10.0
_EXTRA_PRIORITY = 30
_Wait = Callable[[threading.Event], None]


class Processes:
    """Acts on the processes of one instance by name.

    A name is that of a server's process (`postgres`, `kafka-2`) or of a service's (`order-consumer`,
    `kafka-order`). Every method blocks; in async code call them through `asyncio.to_thread`.
    """

    def __init__(self, inventory: Inventory, supervisor: Supervisor, steps: Steps) -> None:
        self._inventory = inventory
        self._site = inventory.site
        self._supervisor = supervisor
        self._steps = steps

    def start(self, name: str, *, wait: bool = True) -> None:
        """Start a process that was stopped or not yet started."""
        self._supervisor.start(name)
        if wait:
            self.wait_ready(name)

    def stop(self, name: str) -> None:
        """Stop a process gracefully, killed after its time; it stays down until `start`."""
        self._supervisor.stop(name)

    def restart(self, name: str, *, wait: bool = True) -> None:
        """Stop and start a process."""
        self.stop(name)
        self.start(name, wait=wait)

    def kill(self, name: str, signal_number: int = signal.SIGKILL) -> list[int]:
        """Send a signal to a process and its descendants; returns their ids. Supervisor restarts what ends.

        After SIGKILL they are gone when this returns.
        """
        pids = self.pids(name)
        ended = []
        for pid in pids:
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                ended.append(psutil.Process(pid))
                os.kill(pid, signal_number)
        if signal_number == signal.SIGKILL:
            psutil.wait_procs(ended, timeout=_KILLED_TIMEOUT_S)
        return pids

    # -- one more of a service

    def start_extra(
        self,
        name: str,
        suffix: str,
        environment: Mapping[str, str] | None = None,
        *,
        in_place: bool = False,
        module: Sequence[str] | None = None,
        wait: bool = True,
    ) -> str:
        """Start one more process like the service process `name`, with settings of its own; return its name.

        It is ready when this returns, unless nobody is to `wait`, and is not restarted when it ends. `in_place`:
        on the port of `name`, which must be stopped. `module` (with arguments) runs in place of the service's own.
        It belongs to the set of `name` until `stop_extra`.
        """
        row = self._inventory.row(name)
        made = self._inventory.set_of(row)
        taken = {other.http_port for other in made.processes}
        port = row.http_port if in_place else port_beside(self._site.ports, row.process, made.number, taken)
        extra = replace(row, name=f"{name}-{suffix}", http_port=port)
        self._inventory.sets[made.name] = replace(made, processes=(*made.processes, extra))
        values = {**services.environment_of(self._site, made, extra), **(environment or {})}
        program = services.program(
            extra, values, module=module or made.modules.get(row.process), autorestart=False
        )
        self._supervisor.add_group(extra.name, [program], priority=_EXTRA_PRIORITY)
        self.start(extra.name, wait=wait)
        return extra.name

    def stop_extra(self, name: str) -> None:
        """Stop a process of `start_extra`, if it still runs, and forget it."""
        self._supervisor.remove_group(name)
        for key, made in self._inventory.sets.items():
            rows = tuple(row for row in made.processes if row.name != name)
            self._inventory.sets[key] = replace(made, processes=rows)

    # -- how it is

    def rows(self) -> list[dict[str, Any]]:
        """Supervisor's rows: `name`, `group`, `statename`, `pid`, …"""
        return self._supervisor.processes()

    def pids(self, name: str) -> list[int]:
        """The process ids of a process, the supervised one first, then its descendants; empty when it is down."""
        row = self._supervisor.process(name)
        if not row["pid"]:
            return []
        try:
            return [row["pid"], *(child.pid for child in psutil.Process(row["pid"]).children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def runs(self, name: str) -> bool:
        """Whether a process is up, ready or not; `pids` looks through all processes of the machine for that."""
        return bool(self._supervisor.process(name)["pid"])

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self._site.logs / f"{name}.log"

    def is_healthy(self, name: str) -> bool:
        """Whether a server or a service process answers right now."""
        probe = self._probe(name)
        try:
            run_async(lambda: asyncio.wait_for(probe(), timeout=_HEALTH_TIMEOUT_S))
        except Exception:  # noqa: BLE001  whatever a client says: it did not answer
            return False
        return True

    def wait_ready(self, name: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until a process answers; for one that was killed, until its successor does.

        Raises StartError, with the end of its log, when it does not.
        """
        self.wait_all_ready([name], timeout_s=timeout_s)

    def wait_all_ready(
        self,
        names: Collection[str],
        *,
        titles: Mapping[str, str] | None = None,
        timeout_s: float = READY_TIMEOUT_S,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """Wait for several at the same time; `titles`, by name, are shown as steps.

        `meanwhile` is called beside, and waited for. The first failure, or an interrupt, ends all waits. Raises as
        `wait_ready`, and what `meanwhile` raises.
        """
        waits = [self._waiting(name, timeout_s, (titles or {}).get(name)) for name in names]
        if meanwhile is not None:
            waits.append(lambda _cancelled: meanwhile())
        cancelled = threading.Event()
        # In threads, since the caller may be inside an event loop.
        with ThreadPoolExecutor(max_workers=max(1, len(waits))) as pool:
            futures = [pool.submit(wait, cancelled) for wait in waits]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                cancelled.set()
                raise

    # -- inside

    def _probe(self, name: str) -> Probe:
        found = table.find(name)
        if found:
            return table.probe_of(self._site, *found)
        return http_probe(f"{self._inventory.row(name).url}/health/ready")

    def _waiting(self, name: str, timeout_s: float, title: str | None) -> _Wait:
        """The work of waiting for one process, shown as a step when it has a title."""
        probe, log = self._probe(name), self.log(name)

        def wait(cancelled: threading.Event) -> None:
            with self._steps.step(title) if title else nullcontext():
                await_ready(name, probe, self._supervisor, log, timeout_s=timeout_s, cancelled=cancelled)

        return wait


def port_beside(ports: Ports, process: str, service_set: int, taken: Collection[int]) -> int:
    """The first HTTP port for one more process of this name that none of the others has.

    They end in any order: how many there are says nothing. Raises DeployError when the block has no room for it.
    """
    return next(port for replica in count(2) if (port := ports.http(process, replica, service_set)) not in taken)


def run_async(work: Probe) -> None:
    """Run a coroutine function to its end, in a thread: the caller may be inside an event loop."""

    async def whole() -> None:
        await work()

    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(asyncio.run, whole()).result()
