"""All that one process consumes from RabbitMQ."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping

from aio_pika.exceptions import AMQPChannelError

from shared.broker.base import BatchHandler, Subscription, Trouble
from shared.broker.rabbit.connection import RabbitConnection
from shared.broker.rabbit.consumer import RabbitConsumer
from shared.broker.rabbit.declarations import RabbitDeclarations
from shared.broker.rabbit.topology import dead_letter_queue_name, queue_name
from shared.broker.tending import Standstill
from shared.settings import Settings


class RabbitSubscriptions:
    """`Consumer`, and the consuming of dead letters: declares, consumes, and consumes again what was cut off."""

    def __init__(
        self,
        connection: RabbitConnection,
        declarations: RabbitDeclarations,
        settings: Settings,
        cut_off: Callable[[], None],
    ) -> None:
        """`cut_off` is called when the server has ended a consumer."""
        self._connection = connection
        self._declarations = declarations
        self._settings = settings
        self._cut_off = cut_off
        self._consumers: list[RabbitConsumer] = []
        self._standstill = Standstill()

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        """As `Consumer.subscribe`."""
        await self._declarations.declare((), (subscription,))
        queue = queue_name(subscription, self._settings.broker_prefix)
        await self._consume(subscription, handler, queue, ordered=subscription.ordered)

    async def subscribe_dead_letters(self, subscription: Subscription, handler: BatchHandler) -> None:
        """As `DeadLetterChannel.subscribe_dead_letters`, for the one group that a queue has: whoever consumes it
        competes."""
        await self._declarations.declare_dead_letter_place(subscription)
        queue = dead_letter_queue_name(subscription, self._settings.broker_prefix)
        await self._consume(subscription, handler, queue, ordered=False)

    async def _consume(
        self, subscription: Subscription, handler: BatchHandler, queue: str, *, ordered: bool
    ) -> None:
        consumer = RabbitConsumer(subscription, handler, queue, self._cut_off, ordered=ordered)
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

    async def tend(self) -> dict[str, Trouble]:
        """Have those consume again whose channel is gone, or of whom the server knows nothing; by its queue who
        cannot, or stands still. Raises `UnavailableError`."""
        troubles: dict[str, Trouble] = {}
        waiting: dict[str, int] = {}
        async with self._connection.asking():
            for consumer in tuple(self._consumers):
                try:
                    ready, consumers = await self._connection.count(consumer.queue)
                    position = await consumer.look(await self._connection.client(), ready, consumers)
                except AMQPChannelError as error:
                    troubles[consumer.queue] = Trouble(f"cannot be consumed: {error!r}")
                else:
                    waiting |= {} if position is None else {consumer.queue: position}
        return self._standstill.look(waiting) | troubles

    async def stop(self) -> None:
        """Stop pulling; let the running batches settle within the grace period."""
        await asyncio.gather(*(consumer.stop(self._settings.shutdown_grace_s) for consumer in self._consumers))
