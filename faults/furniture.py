"""Takes away what the brokers hold for the services: a queue or topic, the dead letters' place, a permission.

None of it may cost an acknowledged event, nor need a restart. What waits in a queue or topic that somebody deletes
is gone, whatever runs on it: so here the relay rests until nothing waits there, while requests are served as ever.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import aio_pika
from aiokafka.admin import AIOKafkaAdminClient

from experiment.broker_state import waiting
from experiment.clock import until
from experiment.effects import CONSUMER
from experiment.side import StalledError
from faults import poison
from faults.scene import ORDER, PATIENCE_S, Scene
from faults.verdicts.side import VerdictSide
from shared.broker import Subscription, destination_name

_SUBSCRIPTION = Subscription(channel="order", subscriber="notification", types=frozenset())
_JUDGING = Subscription(channel="order", subscriber="fraud", types=frozenset())
"""Reads the same topic, where it runs."""
_TIMEOUT_S = 15.0
_POLL_S = 0.5
_HANDED_OVER_S = 2.0
"""What no longer waits may still be on its way to its effect."""
_NOBODY_S = 8.0
"""How long an event finds its place gone, at least."""
_WITHDRAWN_S = 30.0
_NOTHING, _EVERYTHING = "^$", ".*"


async def rest_relay(scene: Scene) -> None:
    """Start an order service without a relay."""
    await scene.stand_in(ORDER, {"TANDEM_ROLES": "api"})


async def stream_deleted(scene: Scene) -> None:
    """Delete the consumer's queue, or the topic; then the relay sends what has come to wait in the outbox.

    Raises `StalledError` when the queue or topic does not run empty.
    """
    settings = scene.side.settings(CONSUMER)
    reading = [_SUBSCRIPTION] if scene.company(VerdictSide) is None else [_SUBSCRIPTION, _JUDGING]

    async def empty() -> bool:
        return not await waiting(settings, reading)

    if not await until(empty, PATIENCE_S, _POLL_S):
        raise StalledError(f"{_SUBSCRIPTION.queue} does not run empty, though nothing is published")
    await asyncio.sleep(_HANDED_OVER_S)
    scene.begin()
    name = _SUBSCRIPTION.queue if scene.broker == "rabbit" else destination_name("kafka", "order")
    await _delete(scene, name)
    await scene.restored(ORDER)
    scene.end()


async def wake_relay(scene: Scene) -> None:
    """Start the order service with its relay."""
    await scene.restored(ORDER)


async def dead_letter_place_deleted(scene: Scene) -> None:
    """Delete the place of the consumer's dead letters just before it has some; all are kept all the same."""
    scene.begin()
    await _delete(scene, f"{_SUBSCRIPTION.queue}.{'dlq' if scene.broker == 'rabbit' else 'dlt'}")
    await poison.comes_and_is_redriven(scene, _NOBODY_S)


async def permission_withdrawn(scene: Scene) -> None:
    """RabbitMQ lets the services' user do nothing for a while.

    A channel remembers what it was permitted, so that all have to come anew.
    """
    scene.begin()
    await _permit(scene, _NOTHING)
    await scene.call(scene.runtime.rabbitmqctl, "close_all_user_connections", _user(scene), "permission withdrawn")
    await asyncio.sleep(_WITHDRAWN_S)
    await permission_granted(scene)
    scene.end()


async def permission_granted(scene: Scene) -> None:
    """RabbitMQ lets the services' user do everything."""
    await _permit(scene, _EVERYTHING)


async def _permit(scene: Scene, what: str) -> None:
    await scene.call(scene.runtime.rabbitmqctl, "set_permissions", _user(scene), what, what, what)


def _user(scene: Scene) -> str:
    return urlsplit(scene.runtime.server_urls()["rabbit"]).username or ""


async def _delete(scene: Scene, name: str) -> None:
    url = scene.runtime.server_urls()[scene.broker]
    if scene.broker == "rabbit":
        async with await aio_pika.connect(url, timeout=_TIMEOUT_S) as connection:
            await (await connection.channel()).queue_delete(name, timeout=_TIMEOUT_S)
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=url, request_timeout_ms=int(_TIMEOUT_S * 1_000))
    await admin.start()
    try:
        await asyncio.wait_for(admin.delete_topics([name]), _TIMEOUT_S)
    finally:
        await admin.close()
