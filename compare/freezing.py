"""Freezes the side that is not measured, so that it takes nothing from the one that is, and thaws it in good time.

Its processes are stopped by SIGSTOP and not ended: that would cool the brokers' compiled code. Broker and
clients are stopped together, so that neither misses the other meanwhile. But their clocks go on: when they wake
up, what was due is late, time-outs of sessions have passed, and some connections are made anew. So a thawed side
has some seconds of load that are thrown away.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable, Mapping

from compare.measured import MeasuredSide
from compare.phases import measure_steady
from deploy.native.servers.table import process_names
from deploy.topology import BrokerName

DISCARDED_S = 5.0
"""Of load, after a thaw."""


class Freezer:
    """Says which of the sides runs; use as an async context manager, after which all do.

    A side whose broker is not a process of the run's is left alone: its clients must not miss their heartbeats.
    """

    def __init__(self, sides: Mapping[BrokerName, MeasuredSide]) -> None:
        self._sides = sides
        self._frozen: set[BrokerName] = set()
        self._thawed = 0

    async def __aenter__(self) -> Freezer:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for broker in list(self._frozen):
            await self._wake(broker)

    async def leave(self, running: Iterable[BrokerName]) -> None:
        """Have these sides run, and no other; a side that was frozen has had its load when this returns."""
        wanted = set(running)
        thawed = self._frozen & wanted
        others = {broker for broker, measured in self._sides.items() if measured.can_be_frozen} - wanted
        for broker in others - self._frozen:
            self._frozen.add(broker)  # first: what is half frozen is to be thawed, too
            await self._signal(broker, signal.SIGSTOP)
        for broker in thawed:
            await self._wake(broker)
        for broker in thawed:
            self._thawed += 1
            await measure_steady(self._sides[broker], f"thawed-{self._thawed}", None, DISCARDED_S)

    async def _wake(self, broker: BrokerName) -> None:
        await self._signal(broker, signal.SIGCONT)
        self._frozen.discard(broker)

    async def _signal(self, broker: BrokerName, number: signal.Signals) -> None:
        side = self._sides[broker].side
        runtime = side.runtime
        services = [row.name for row in runtime.sets[broker].processes]
        nodes = process_names(runtime.site, broker)
        # The clients first to stop and last to wake: nobody waits for a broker that is frozen.
        names = [*services, *nodes] if number is signal.SIGSTOP else [*nodes, *services]
        for name in names:
            await asyncio.to_thread(runtime.processes.kill, name, number)
