"""Faults in which a process kills or stops itself at fail points."""

from __future__ import annotations

import asyncio

from deploy.topology import BROKERS, BrokerName
from faults.fault import Act, Fault
from faults.scene import PATIENCE_S, Scene
from shared import failpoints

_PASSES = {
    failpoints.BEFORE_EFFECT: 8,
    failpoints.AFTER_EFFECT: 8,
    failpoints.AFTER_COMMIT: 8,
    failpoints.BEFORE_PUBLISH: 4,
    failpoints.AFTER_PUBLISH: 4,
    failpoints.WORKER_LEASED: 4,
    failpoints.WORKER_BEFORE_COMMIT: 4,
    failpoints.WORKER_AFTER_COMMIT: 4,
    failpoints.SCHEDULER_BEFORE_COMMIT: 1,
    failpoints.SCHEDULER_AFTER_COMMIT: 1,
}
"""What a process does first, before it dies at a place: a second or two of what runs beside the orders."""

_PATIENCE_S = 2 * PATIENCE_S
"""It starts, and on Kafka waits for its partitions, before it does anything."""

_STOPPED_S = 35.0
"""Longer than a claim's heartbeat (4 s), Kafka's session (6 s), RabbitMQ's heartbeats (30 s) and what PostgreSQL
allows a transaction that does nothing."""


def dies_at_each(process: str, *places: str) -> Act:
    """One after the other, processes that kill themselves at these places; then a sound one."""

    async def act(scene: Scene) -> None:
        scene.begin()
        for place in places:
            environment = {"TANDEM_FAILPOINTS": f"{place}=kill@{_PASSES[place]}"}
            armed = await scene.stand_in(process, environment, wait=False)
            await scene.await_end(armed, _PATIENCE_S)
            await scene.call(scene.runtime.processes.stop_extra, armed)
        scene.end()
        await scene.restored(process)

    return act


def restores(process: str) -> Act:
    """Start the process again, without what stood in for it."""

    async def restore(scene: Scene) -> None:
        await scene.restored(process)

    return restore


def zombie(name: str, title: str, process: str, passes: int, brokers: tuple[BrokerName, ...] = BROKERS) -> Fault:
    """A process stops itself in the middle of its transaction, a second one takes over, and the first wakes up."""

    async def prepare(scene: Scene) -> None:
        await scene.stand_in(process, {"TANDEM_FAILPOINTS": f"{failpoints.AFTER_EFFECT}=stop@{passes}"})
        await scene.call(scene.runtime.processes.start_extra, scene.process(process), "second")

    async def act(scene: Scene) -> None:
        stopped = f"{scene.process(process)}-stand-in"
        await scene.await_stop(stopped)
        scene.begin()
        await asyncio.sleep(_STOPPED_S)
        await scene.wake(stopped)
        scene.end()

    async def restore(scene: Scene) -> None:
        await scene.wake(f"{scene.process(process)}-stand-in")
        await scene.restored(process)

    return Fault(name, f"{title} SIGSTOP for {_STOPPED_S:g} s", act, 44, prepare, restore, brokers=brokers)
