"""All that one process consumes from RabbitMQ."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from shared import cancellation
from shared.broker.base import BatchHandler, Subscription
from shared.broker.rabbit.connection import RabbitConnection
from shared.broker.rabbit.consumer import RabbitConsumer
from shared.broker.rabbit.declarations import RabbitDeclarations, keep_declared
from shared.broker.rabbit.topology import dead_letter_queue_name
from shared.settings import Settings


class RabbitSubscriptions:
    """`Consumer`, and the consuming of dead letters: declares, consumes, and keeps declared what is consumed."""

    def __init__(self, connection: RabbitConnection, declarations: RabbitDeclarations, settings: Settings) -> None:
        self._connection = connection
        self._declarations = declarations
        self._settings = settings
        self._consumers: list[RabbitConsumer] = []
        self._subscriptions: list[Subscription] = []
        self._tending: asyncio.Task[None] | None = None

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        """As `Consumer.subscribe`."""
        await self._declarations.declare((), (subscription,))
        await self._consume(RabbitConsumer(subscription, handler))
        self._subscriptions.append(subscription)
        if self._tending is None:
            keeping = keep_declared(self._connection, self._subscriptions, self._settings)
            self._tending = asyncio.create_task(keeping, name="keep-declared")

    async def subscribe_dead_letters(self, subscription: Subscription, handler: BatchHandler) -> None:
        """As `DeadLetterChannel.subscribe_dead_letters`, for the one group that a queue has: whoever consumes it
        competes."""
        await self._declarations.declare_dead_letter_place(subscription)
        await self._consume(RabbitConsumer(subscription, handler, dead_letter_queue_name(subscription)))

    async def _consume(self, consumer: RabbitConsumer) -> None:
        self._consumers.append(consumer)
        async with self._connection.setting_up():
            await consumer.start(await self._connection.client())

    @property
    def settlement_failures(self) -> Mapping[str, int]:
        """As `Consumer.settlement_failures`."""
        failures: Counter[str] = Counter()
        for consumer in self._consumers:
            failures[consumer.queue] += consumer.settlement_failures
        return failures

    async def stop(self) -> None:
        """Stop pulling; let the running batches settle within the grace period."""
        if self._tending is not None:
            await cancellation.end(self._tending)
        await asyncio.gather(*(consumer.stop(self._settings.shutdown_grace_s) for consumer in self._consumers))
