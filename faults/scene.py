"""Gives a fault what it needs: a side, its processes and servers, the proxies, and the clock."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

from deploy.native import BrokerName, Runtime
from experiment.clock import until
from experiment.side import Side, StalledError
from faults.proxy import Proxies

ORDER = "order"
"""The order service's HTTP interface and relay, in one process."""
PATIENCE_S = 60.0
"""For anything that must come about while a fault is played, such as the death of an armed process."""
_POLL_S = 0.05
_KILLED = -1
"""What supervisor says of a process that a signal has ended."""

ResultT = TypeVar("ResultT")
CompanyT = TypeVar("CompanyT")


@dataclass(slots=True)
class Scene:
    """A side on which a fault is played.

    `began_s` and `ended_s` are the fault's times: of `begin` and `end`, or else of the caller around the fault.
    """

    side: Side
    proxies: Proxies
    companies: tuple[object, ...] = ()
    """What runs beside the orders: see `faults.beside.Company`."""
    began_s: float | None = None
    ended_s: float | None = None

    @property
    def broker(self) -> BrokerName:
        return self.side.broker

    @property
    def runtime(self) -> Runtime:
        return self.side.runtime

    def process(self, name: str) -> str:
        """The supervised name of `order`, `notification-consumer`, …."""
        return self.side.process(name)

    def company(self, kind: type[CompanyT]) -> CompanyT | None:
        """What runs beside the orders and is of this kind; None where nothing is."""
        return next((one for one in self.companies if isinstance(one, kind)), None)

    def begin(self) -> None:
        """The fault begins now."""
        self.began_s = self.side.clock.now_s()

    def end(self) -> None:
        """The fault is over now, and the system may recover."""
        self.ended_s = self.side.clock.now_s()

    async def call(self, function: Callable[..., ResultT], *arguments: Any, **options: Any) -> ResultT:
        """Run something of the runtime, which blocks, beside the load."""
        return await asyncio.to_thread(function, *arguments, **options)

    # -- processes and servers

    async def kill(self, name: str) -> None:
        """Kill a process, which supervisor starts again at once. Raises `StalledError` when nothing runs."""
        self.begin()
        if not await self.call(self.runtime.processes.kill, name):
            raise StalledError(f"{name} was not running and could not be killed")
        self.end()

    async def stand_in(
        self,
        name: str,
        environment: Mapping[str, str],
        module: Sequence[str] | None = None,
        *,
        wait: bool = True,
    ) -> str:
        """Replace a service process by one with other settings or another module, on its port; return its name.

        It is ready then, unless nobody is to `wait`: one that is to die may do so before.
        """
        await self.call(self.runtime.processes.stop, self.process(name))
        return await self.call(
            self.runtime.processes.start_extra,
            self.process(name),
            "stand-in",
            environment,
            in_place=True,
            module=module,
            wait=wait,
        )

    async def restored(self, name: str) -> None:
        """Start a service process again, without the extra ones beside it."""
        await self.remove_extras(name)
        await self.call(self.runtime.processes.start, self.process(name))

    async def remove_extras(self, name: str) -> None:
        """Stop the processes that were started beside a service process."""
        for row in self.runtime.sets[self.broker].processes:
            if row.name.startswith(f"{self.process(name)}-") and row.process == name:
                await self.call(self.runtime.processes.stop_extra, row.name)

    async def await_end(self, name: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until a signal has ended a process. Raises `StalledError` when it lives on, or ends by itself."""

        async def ended() -> bool:
            return not await self.call(self.runtime.processes.runs, name)

        if not await until(ended, patience_s, _POLL_S):
            raise StalledError(f"{name} does not end: its fail point was not reached")
        rows = {row["name"]: row for row in await self.call(self.runtime.processes.rows)}
        status = rows[name]["exitstatus"]
        if status != _KILLED:
            raise StalledError(f"{name} ended with exit status {status}, and not at its fail point")

    async def await_stop(self, name: str) -> None:
        """Wait until a process has stopped itself (SIGSTOP). Raises `StalledError` when it does not."""

        async def stopped() -> bool:
            pids = await self.call(self.runtime.processes.pids, name)
            try:
                return bool(pids) and psutil.Process(pids[0]).status() == psutil.STATUS_STOPPED
            except psutil.NoSuchProcess:  # it ended in this moment
                return False

        if not await until(stopped, PATIENCE_S, _POLL_S):
            raise StalledError(f"{name} does not stop: its fail point was not reached")

    async def wake(self, name: str) -> None:
        """Let a stopped process go on (SIGCONT)."""
        await self.call(self.runtime.processes.kill, name, signal.SIGCONT)
