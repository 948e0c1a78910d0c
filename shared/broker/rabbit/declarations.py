"""Declares exchanges and queues, keeps the exchanges to publish to, and declares again what others removed.

An operator who deletes a binding or a queue, or a policy that expires one, would otherwise stop the stream until
somebody restarts the consumer: publishers keep their events (they are mandatory), and nothing repairs the route.
aio-pika resumes a consumer whose queue went and came back by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import aiormq
import structlog
from aio_pika import RobustExchange
from faststream.rabbit import RabbitExchange, RabbitQueue

from shared.broker.base import Subscription
from shared.broker.rabbit.connection import RabbitConnection
from shared.broker.rabbit.errors import LOST
from shared.broker.rabbit.topology import dead_letter_exchange, dead_letter_queue, event_exchange, subscriber_queue
from shared.errors import UnavailableError
from shared.settings import Settings

_log = structlog.get_logger(__name__)

REDECLARE_INTERVAL_S = 5.0


class RabbitDeclarations:
    """What was declared on a connection. FastStream asks the server for each exchange and queue only once."""

    def __init__(self, connection: RabbitConnection, settings: Settings) -> None:
        self._connection = connection
        self._broker = connection.faststream
        self._settings = settings
        self._exchanges: dict[str, RobustExchange] = {}
        self._dead_letter_exchanges: dict[str, RobustExchange] = {}

    async def declare(self, channels: Sequence[str], subscriptions: Sequence[Subscription]) -> None:
        """As `Broker.declare`."""
        async with self._connection.setting_up():
            for channel in {*channels, *(subscription.channel for subscription in subscriptions)}:
                self._exchanges[channel] = await self._broker.declare_exchange(event_exchange(channel))
            for subscription in subscriptions:
                await self._declare_subscription(subscription)

    async def declare_dead_letter_place(self, subscription: Subscription) -> None:
        """The place alone, without the subscriber's queue. Raises as `declare`."""
        async with self._connection.setting_up():
            await self._declare_dead_letter_place(subscription)

    async def _declare_subscription(self, subscription: Subscription) -> None:
        """Dead-letter place first: from the moment that the queue is there, nothing in it can be lost."""
        await self._declare_dead_letter_place(subscription)
        queue = await self._broker.declare_queue(subscriber_queue(subscription, self._settings))
        for event_type in sorted(subscription.types):
            await queue.bind(self._exchanges[subscription.channel], routing_key=event_type)

    async def _declare_dead_letter_place(self, subscription: Subscription) -> None:
        dlx = await self._broker.declare_exchange(dead_letter_exchange(subscription.channel))
        self._dead_letter_exchanges[subscription.channel] = dlx
        dlq = await self._broker.declare_queue(dead_letter_queue(subscription, self._settings))
        await dlq.bind(dlx, routing_key=subscription.queue)

    def exchange(self, channel: str) -> RobustExchange:
        """Where a channel's events are published. Raises `UnavailableError` if it was not declared."""
        try:
            return self._exchanges[channel]
        except KeyError:
            raise UnavailableError(f"channel {channel} was not declared") from None

    def dead_letter_exchange(self, subscription: Subscription) -> RobustExchange:
        """Where a subscriber's dead letters are published. Raises `UnavailableError` if it was not declared."""
        try:
            return self._dead_letter_exchanges[subscription.channel]
        except KeyError:
            raise UnavailableError(f"subscription {subscription.queue} was not declared") from None

    async def default_exchange(self) -> RobustExchange:
        """It routes to the queue that a message names, past every binding. Raises one of `LOST`."""
        return await self._broker.declare_exchange(RabbitExchange())


async def keep_declared(
    connection: RabbitConnection, subscriptions: Sequence[Subscription], settings: Settings
) -> None:
    """Every `REDECLARE_INTERVAL_S`, until cancelled. `subscriptions` may grow meanwhile."""
    while True:
        await asyncio.sleep(REDECLARE_INTERVAL_S)
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                channel = await connection.open_channel()
                try:
                    for subscription in tuple(subscriptions):
                        await _declare_again(channel, subscription, settings)
                finally:
                    await channel.close()
        except LOST as error:  # also when it is there with other arguments: the start of a process refuses that
            _log.warning("rabbit.redeclare_failed", error=repr(error))


async def _declare_again(
    channel: aiormq.abc.AbstractChannel, subscription: Subscription, settings: Settings
) -> None:
    """As `RabbitDeclarations.declare` does through FastStream, which remembers what it declared."""
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
