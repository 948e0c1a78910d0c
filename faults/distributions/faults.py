"""The faults of receiving alone: who asks and who decides are processes of their own, and each is killed.

As they run else, one process of the wallet is both, so that both die at once: see `faults.transfers.faults`.
"""

from __future__ import annotations

import asyncio

from faults.fault import Fault
from faults.scene import PATIENCE_S, Scene
from shared import failpoints

_WALLET = "wallet"
_API, _WORKER = {"TANDEM_ROLES": "api,relay"}, {"TANDEM_ROLES": "consumer"}
_PASSES = 2
"""A worker has decided on some before it dies."""
_SENT = 8
"""All five who ask for the first distribution and did not give it wait for an answer, and some more."""
_LOST_S = 10.0
"""Longer than anybody waits for a reply."""
_PATIENCE_S = 2 * PATIENCE_S
"""A process starts, and on Kafka waits for its partitions, before it does anything."""
_IN_A_RECEIVE = (
    f"{failpoints.BEFORE_EFFECT}:share",  # before anything is locked
    f"{failpoints.AFTER_EFFECT}:share",  # posted, not committed
    failpoints.BEFORE_REPLY,  # committed, not told
)


async def _ask_apart(scene: Scene) -> None:
    """Nobody decides, at first: what is asked for waits at the broker, or is given up."""
    await scene.stand_in(_WALLET, _API)


async def _workers_die(scene: Scene) -> None:
    scene.begin()
    for place in _IN_A_RECEIVE:
        armed = await _worker(scene, f"{place}=kill@{_PASSES}", wait=False)
        await scene.await_end(armed, _PATIENCE_S)
        await scene.call(scene.runtime.processes.stop_extra, armed)
    scene.end()
    await _restored(scene)


async def _never_reply(scene: Scene) -> None:
    """A worker whose replies are all lost, and one who asks and dies while many wait."""
    await _worker(scene, f"{failpoints.BEFORE_REPLY}=raise")
    await scene.stand_in(_WALLET, {**_API, "TANDEM_FAILPOINTS": f"{failpoints.REQUEST_SENT}=kill@{_SENT}"})


async def _asker_dies(scene: Scene) -> None:
    asking = f"{scene.process(_WALLET)}-stand-in"
    await scene.await_end(asking)
    scene.begin()
    await scene.call(scene.runtime.processes.stop_extra, asking)
    await scene.stand_in(_WALLET, _API)
    await asyncio.sleep(_LOST_S)
    scene.end()
    await _restored(scene)


async def _worker(scene: Scene, failpoint: str, *, wait: bool = True) -> str:
    """A process that only decides, beside the one that is asked; returns its name."""
    environment = {**_WORKER, "TANDEM_FAILPOINTS": failpoint}
    return await scene.call(
        scene.runtime.processes.start_extra, scene.process(_WALLET), "worker", environment, wait=wait
    )


async def _restored(scene: Scene) -> None:
    await scene.restored(_WALLET)


DISTRIBUTION_FAULTS: tuple[Fault, ...] = (
    Fault(
        "receive-worker-sigkill",
        "distributions: worker SIGKILL in a receive",
        _workers_die,
        load_s=10,
        prepare=_ask_apart,
        restore=_restored,
    ),
    Fault(
        "receive-api-sigkill",
        "distributions: replies lost, API SIGKILL",
        _asker_dies,
        load_s=16,
        prepare=_never_reply,
        restore=_restored,
    ),
)
