"""Declares the subscriptions of a running consumer again and again, so that what others removed comes back.

An operator who deletes a binding or a queue, or a policy that expires one, would otherwise stop the stream until
somebody restarts the consumer: publishers keep their events (they are mandatory), and nothing repairs the route.
aio-pika resumes a consumer whose queue went and came back by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiormq
import structlog
from faststream.rabbit import RabbitExchange, RabbitQueue

from shared.broker.base import Subscription
from shared.broker.rabbit.consumer import LOST
from shared.broker.rabbit.topology import dead_letter_exchange, dead_letter_queue, event_exchange, subscriber_queue
from shared.settings import Settings

_log = structlog.get_logger(__name__)

REDECLARE_INTERVAL_S = 5.0


async def keep_declared(
    open_channel: Callable[[], Awaitable[aiormq.abc.AbstractChannel]],
    subscriptions: Sequence[Subscription],
    settings: Settings,
) -> None:
    """Every `REDECLARE_INTERVAL_S`, until cancelled. `subscriptions` may grow meanwhile; `open_channel` gives a
    channel of the connection that is up, or raises one of `LOST`."""
    while True:
        await asyncio.sleep(REDECLARE_INTERVAL_S)
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                channel = await open_channel()
                try:
                    for subscription in tuple(subscriptions):
                        await _declare(channel, subscription, settings)
                finally:
                    await channel.close()
        except LOST as error:  # also when it is there with other arguments: the start of a process refuses that
            _log.warning("rabbit.redeclare_failed", error=repr(error))


async def _declare(channel: aiormq.abc.AbstractChannel, subscription: Subscription, settings: Settings) -> None:
    """As `RabbitAdapter.declare` does through FastStream, which remembers what it declared and asks only once."""
    events, dlx = event_exchange(subscription.channel), dead_letter_exchange(subscription.channel)
    dlq, queue = dead_letter_queue(subscription, settings), subscriber_queue(subscription, settings)
    for exchange in (events, dlx):
        await channel.exchange_declare(exchange.name, **_exchange_options(exchange))
    await channel.queue_declare(dlq.name, **_queue_options(dlq))
    await channel.queue_bind(dlq.name, dlx.name, subscription.queue)
    await channel.queue_declare(queue.name, **_queue_options(queue))
    for event_type in sorted(subscription.types):
        await channel.queue_bind(queue.name, events.name, event_type)


def _exchange_options(exchange: RabbitExchange) -> dict[str, Any]:
    return {"exchange_type": exchange.type.value, "durable": exchange.durable, "arguments": exchange.arguments}


def _queue_options(queue: RabbitQueue) -> dict[str, Any]:
    return {"durable": queue.durable, "arguments": queue.arguments}
