"""Sends poison while the dead-letter service is down; then a fix is deployed and what failed is redriven."""

from __future__ import annotations

import asyncio

import httpx

from experiment.clock import until
from experiment.effects import CONSUMER
from experiment.side import StalledError
from faults.scene import PATIENCE_S, Scene

_KEEPER = "dead-letter"
_LETTERS = 8
_ARRIVAL_S = 4.0
_POLL_S = 0.2
_TIMEOUT_S = 10.0


async def prepare(scene: Scene) -> None:
    """Start a consumer that cannot take the next events of one type."""
    await scene.stand_in(CONSUMER, {"TANDEM_FAILPOINTS": f"handler:order.paid=raise*{_LETTERS}"})


async def arrives(scene: Scene) -> None:
    """Play the fault; it is over when the consumer is sound again and the dead-letter service is up."""
    scene.begin()
    await scene.call(scene.runtime.processes.stop, scene.process(_KEEPER))
    await asyncio.sleep(_ARRIVAL_S)
    await scene.restored(CONSUMER)
    await scene.call(scene.runtime.processes.start, scene.process(_KEEPER))
    scene.end()
    url = scene.runtime.addresses.service_urls(scene.broker)["dead_letter"]
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:

        async def all_kept() -> bool:
            answer = await client.get("/dead-letters", params={"state": "pending", "type": "order.paid"})
            return answer.status_code == 200 and len(answer.json()["items"]) >= _LETTERS

        if not await until(all_kept, PATIENCE_S, _POLL_S):
            raise StalledError("the dead-letter service does not hear of what failed while it was down")
        answer = await client.post("/dead-letters/redrive", json={"filter": {"type": "order.paid"}})
    if answer.status_code != 202:
        raise StalledError(f"the redrive was answered with {answer.status_code}: {answer.text[:200]}")


async def restore(scene: Scene) -> None:
    """Start a sound consumer, and the dead-letter service."""
    await scene.restored(CONSUMER)
    await scene.call(scene.runtime.processes.start, scene.process(_KEEPER))
