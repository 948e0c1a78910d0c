"""The faults that the wallet alone has to bear; what else is broken is broken under it, too.

One process of the wallet answers requests, publishes and executes transfers.
"""

from __future__ import annotations

import asyncio

from faults.deaths import dies_at_each, restores
from faults.fault import Fault
from faults.scene import Scene
from shared import failpoints

_WALLET = "wallet"
_PASSES = 8
_STOPPED_S = 35.0
"""Longer than RabbitMQ's heartbeats (30 s), Kafka's session (6 s) and what PostgreSQL allows a transaction that
does nothing."""


async def _arm_zombie(scene: Scene) -> None:
    """A wallet that stops itself with accounts locked, and a second one to take over."""
    await scene.stand_in(_WALLET, {"TANDEM_FAILPOINTS": f"{failpoints.AFTER_EFFECT}=stop@{_PASSES}"})
    await scene.call(scene.runtime.processes.start_extra, scene.process(_WALLET), "second")


async def _zombie(scene: Scene) -> None:
    zombie = f"{scene.process(_WALLET)}-stand-in"
    await scene.await_stop(zombie)
    scene.begin()
    await asyncio.sleep(_STOPPED_S)
    await scene.wake(zombie)
    scene.end()


async def _bury_zombie(scene: Scene) -> None:
    await scene.wake(f"{scene.process(_WALLET)}-stand-in")
    await scene.restored(_WALLET)


TRANSFER_FAULTS: tuple[Fault, ...] = (
    Fault(
        "wallet-sigkill",
        "transfers: wallet SIGKILL around a commit and a publish",
        dies_at_each(
            _WALLET,
            failpoints.BEFORE_EFFECT,
            failpoints.AFTER_EFFECT,
            failpoints.AFTER_COMMIT,
            failpoints.BEFORE_PUBLISH,
            failpoints.AFTER_PUBLISH,
        ),
        load_s=10,
        restore=restores(_WALLET),
    ),
    Fault(
        "wallet-zombie",
        f"transfers: wallet SIGSTOP for {_STOPPED_S:g} s",
        _zombie,
        44,
        _arm_zombie,
        _bury_zombie,
        brokers=("rabbit",),
    ),
)
