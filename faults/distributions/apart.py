"""The wallet in processes of their own, so that each can die alone: who is asked, who decides, who publishes.

As it runs else, one process is all three, and all die at once: see `faults.transfers.faults`.
"""

from __future__ import annotations

from collections.abc import Mapping

from experiment.side import StalledError
from faults.scene import PATIENCE_S, Scene

WALLET = "wallet"
API, WORKER, RELAY = "api", "consumer", "relay"
"""Roles."""
DEATH_PATIENCE_S = 3 * PATIENCE_S
"""A process starts, and on Kafka waits for its partitions, before it does anything; on a machine that others use,
one before which a crowd waits needs a minute and a half."""


async def asked(scene: Scene, roles: str, failpoint: str = "", *, wait: bool = True) -> str:
    """In the wallet's place a process with these roles; returns its name.

    Without `consumer` it does not decide: what it asks for waits at the broker for who does, or is given up.
    """
    return await scene.stand_in(WALLET, _told(roles, failpoint), wait=wait)


async def beside(
    scene: Scene, role: str, failpoint: str = "", settings: Mapping[str, str] | None = None, *, wait: bool = True
) -> str:
    """One more process of the wallet, with this role alone; returns its name."""
    environment = {**_told(role, failpoint), **(settings or {})}
    return await scene.call(
        scene.runtime.processes.start_extra, scene.process(WALLET), role, environment, wait=wait
    )


async def dead(scene: Scene, armed: str) -> None:
    """Wait until a process has killed itself at its fail point, and forget it. Raises as `Scene.await_end`."""
    await scene.await_end(armed, DEATH_PATIENCE_S)
    await scene.call(scene.runtime.processes.stop_extra, armed)


async def kill(scene: Scene, name: str) -> None:
    """Kill one that was started here, whatever it does, and forget it. Raises `StalledError` when nothing runs."""
    if not await scene.call(scene.runtime.processes.kill, name):
        raise StalledError(f"{name} was not running and could not be killed")
    await scene.call(scene.runtime.processes.stop_extra, name)


async def together(scene: Scene) -> None:
    """The wallet as it runs else."""
    await scene.restored(WALLET)


def _told(roles: str, failpoint: str) -> dict[str, str]:
    return {"TANDEM_ROLES": roles, "TANDEM_FAILPOINTS": failpoint}
