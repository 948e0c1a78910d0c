"""Sends poison: events that cannot be handled, and messages that are no events, under the worst headers.

What could not be handled is kept by the dead-letter service, and redriven when the fault is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import httpx
from aiokafka import AIOKafkaProducer

from experiment.clock import until
from experiment.effects import CONSUMER
from experiment.side import StalledError
from faults.scene import PATIENCE_S, Scene
from shared.broker import destination_name
from shared.dead_letter import headers

KEEPER = "dead-letter"
LETTERS = 8
_ARRIVAL_S = 4.0
_POLL_S = 0.2
_TIMEOUT_S = 10.0
_CHANNEL, _TYPE = "order", "order.placed"
_NO_EVENT = b"poison"
_FRAME_BYTES = 130_500
"""Of a header: the largest that fits RabbitMQ's frame of 131,072 bytes beside the rest."""
_RECORD_BYTES = 1_000_000
"""Of a header: the largest that fits the 1,048,588 bytes of a batch on Kafka."""
_WORST_NAMES = (headers.FIRST_FAILED_AT, headers.LETTER_ID, headers.REDRIVE, headers.ERROR_STACK, "their-own")


async def prepare(scene: Scene) -> None:
    """Start a consumer that cannot take the next events of one type."""
    await scene.stand_in(CONSUMER, {"TANDEM_FAILPOINTS": f"handler:order.paid=raise*{LETTERS}"})


async def arrives(scene: Scene) -> None:
    """Play the fault; it is over when the consumer is sound again and the dead-letter service is up."""
    scene.begin()
    await scene.call(scene.runtime.processes.stop, scene.process(KEEPER))
    await asyncio.sleep(_ARRIVAL_S)
    await scene.restored(CONSUMER)
    await scene.call(scene.runtime.processes.start, scene.process(KEEPER))
    scene.end()
    await redriven(scene)


async def restore(scene: Scene) -> None:
    """Start a sound consumer, and the dead-letter service."""
    await scene.restored(CONSUMER)
    await scene.restored(KEEPER)


async def comes_and_is_redriven(scene: Scene, for_s: float) -> None:
    """For so long the consumer cannot take all; the fault ends when it is sound again. Raises as `redriven`."""
    await prepare(scene)
    await asyncio.sleep(for_s)
    await scene.restored(CONSUMER)
    scene.end()
    await redriven(scene)


async def redriven(scene: Scene) -> None:
    """Wait until all that the consumer could not take is kept, and give it back to a sound consumer.

    Raises `StalledError` when it is not kept, or may not be given back.
    """
    async with _keeper(scene) as client:
        await _kept(client, {"state": "pending", "type": "order.paid"}, LETTERS)
        answer = await client.post("/dead-letters/redrive", json={"filter": {"type": "order.paid"}})
    if answer.status_code != 202:
        raise StalledError(f"the redrive was answered with {answer.status_code}: {answer.text[:200]}")


async def with_the_worst_headers(scene: Scene) -> None:
    """Publish messages that are no events and whose headers fill what the broker takes; each is to be kept.

    They are discarded then, so that none is left for the next fault. Raises `StalledError` when one is not kept.
    """
    scene.begin()
    publish = _publish_rabbit if scene.broker == "rabbit" else _publish_kafka
    await publish(scene)
    scene.end()
    async with _keeper(scene) as client:
        undecodable = {"error_type": "UndecodableError", "channel": _CHANNEL, "subscriber": "notification"}
        for letter in await _kept(client, undecodable, len(_WORST_NAMES)):
            answer = await client.post(
                f"/dead-letters/{letter['id']}/discard", json={"reason": "a fault was played"}
            )
            if answer.status_code != 200:
                raise StalledError(f"a letter is not discarded: {answer.status_code}, {answer.text[:200]}")


@asynccontextmanager
async def _keeper(scene: Scene) -> AsyncIterator[httpx.AsyncClient]:
    url = scene.runtime.addresses.service_urls(scene.broker)["dead_letter"]
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:
        yield client


async def _kept(client: httpx.AsyncClient, query: Mapping[str, str], count: int) -> list[dict[str, Any]]:
    letters: list[dict[str, Any]] = []

    async def all_kept() -> bool:
        nonlocal letters
        try:
            answer = await client.get("/dead-letters", params=query)
        except httpx.TransportError:
            return False
        letters = answer.json()["items"] if answer.status_code == 200 else []
        return len(letters) >= count

    if not await until(all_kept, PATIENCE_S, _POLL_S):
        raise StalledError(f"of {count} that failed the dead-letter service keeps {len(letters)}")
    return letters


async def _publish_rabbit(scene: Scene) -> None:
    async with await aio_pika.connect(scene.runtime.server_urls()["rabbit"], timeout=_TIMEOUT_S) as connection:
        exchange = await (await connection.channel()).get_exchange(destination_name("rabbit", _CHANNEL))
        for name in _WORST_NAMES:
            message = aio_pika.Message(_NO_EVENT, headers={name: "x" * _FRAME_BYTES}, delivery_mode=2)
            await exchange.publish(message, _TYPE, timeout=_TIMEOUT_S)


async def _publish_kafka(scene: Scene) -> None:
    servers = scene.runtime.server_urls()["kafka"]
    async with AIOKafkaProducer(bootstrap_servers=servers, max_request_size=2 * _RECORD_BYTES) as producer:
        for name in _WORST_NAMES:
            header = (name, b"x" * _RECORD_BYTES)
            topic = destination_name("kafka", _CHANNEL)
            await asyncio.wait_for(producer.send_and_wait(topic, _NO_EVENT, headers=[header]), _TIMEOUT_S)
