"""The faults of receiving alone: who asks and who decides are processes of their own, and each is killed."""

from __future__ import annotations

import asyncio

from faults.distributions import apart
from faults.distributions.apart import API, RELAY, WORKER
from faults.distributions.crowd_faults import CROWD_FAULTS
from faults.fault import Fault
from faults.scene import Scene
from shared import failpoints

_ASKS = f"{API},{RELAY}"
_PASSES = 2
"""A worker has decided on some before it dies."""
_SENT = 8
"""All five who ask for the first distribution and did not give it wait for an answer, and some more."""
_LOST_S = 10.0
"""Longer than anybody waits for a reply."""
_IN_A_RECEIVE = (
    f"{failpoints.BEFORE_EFFECT}:share",  # before anything is locked
    f"{failpoints.AFTER_EFFECT}:share",  # posted, not committed
    failpoints.BEFORE_REPLY,  # committed, not told
)


async def _ask_apart(scene: Scene) -> None:
    """Nobody decides, at first: what is asked for waits at the broker, or is given up."""
    await apart.asked(scene, _ASKS)


async def _workers_die(scene: Scene) -> None:
    scene.begin()
    for place in _IN_A_RECEIVE:
        await apart.dead(scene, await apart.beside(scene, WORKER, f"{place}=kill@{_PASSES}", wait=False))
    scene.end()
    await apart.together(scene)


async def _never_reply(scene: Scene) -> None:
    """A worker whose replies are all lost, and one who asks and dies while many wait."""
    await apart.beside(scene, WORKER, f"{failpoints.BEFORE_REPLY}=raise")
    await apart.asked(scene, _ASKS, f"{failpoints.REQUEST_SENT}=kill@{_SENT}")


async def _asker_dies(scene: Scene) -> None:
    asking = f"{scene.process(apart.WALLET)}-stand-in"
    await scene.await_end(asking)
    scene.begin()
    await scene.call(scene.runtime.processes.stop_extra, asking)
    await apart.asked(scene, _ASKS)
    await asyncio.sleep(_LOST_S)
    scene.end()
    await apart.together(scene)


DISTRIBUTION_FAULTS: tuple[Fault, ...] = (
    Fault(
        "receive-worker-sigkill",
        "distributions: worker SIGKILL in a receive",
        _workers_die,
        load_s=10,
        prepare=_ask_apart,
        restore=apart.together,
    ),
    Fault(
        "receive-api-sigkill",
        "distributions: replies lost, API SIGKILL",
        _asker_dies,
        load_s=16,
        prepare=_never_reply,
        restore=apart.together,
    ),
    *CROWD_FAULTS,
)
