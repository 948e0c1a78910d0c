"""The Kafka adapter: partitioned topics, an idempotent producer with `acks=all`, manual commits.

FastStream owns the consumers and writes the AsyncAPI document; a poll is a batch, so nothing of it runs per
message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from shared.broker.asking import Reply
from shared.broker.base import (
    BatchHandler,
    Capabilities,
    DeadLetter,
    Delivery,
    Message,
    Operation,
    PublishFailure,
    QueueState,
    Subscription,
    Trouble,
)
from shared.broker.kafka.clients import KafkaClients
from shared.broker.kafka.dead_letters import KafkaDeadLetters
from shared.broker.kafka.declarations import KafkaDeclarations
from shared.broker.kafka.inspector import KafkaInspector
from shared.broker.kafka.producer import KafkaProducer
from shared.broker.kafka.replies import KafkaReplies
from shared.broker.kafka.subscriptions import KafkaSubscriptions
from shared.broker.tending import Tending
from shared.errors import TandemError
from shared.event import Asked
from shared.settings import Settings


class KafkaAdapter:
    """`Broker` on Apache Kafka 4.x: a part for each role."""

    capabilities = Capabilities(
        name="kafka",
        order_scope="partition",
        scale_out_keeps_order=True,
        replay=True,
        routes_by_type=False,
        unroutable_detected=False,
        delivery_limit=False,
        delayed_retry=False,
        request_reply=True,
    )

    def __init__(self, settings: Settings, client_name: str) -> None:
        self._shutdown_grace_s = settings.shutdown_grace_s
        self._prefix = settings.broker_prefix
        self._clients = KafkaClients(settings, client_name)
        self._producer = KafkaProducer(settings, client_name)
        self._declarations = KafkaDeclarations(self._clients, self._producer, settings)
        self._subscriptions = KafkaSubscriptions(
            client_name, self._clients, self._declarations, settings, producer=self._producer
        )
        self._dead_letters = KafkaDeadLetters(self._clients, self._declarations, self._producer)
        self._replies = KafkaReplies(self._clients, self._declarations, self._producer)
        self._inspector = KafkaInspector(self._clients, self._producer, settings.broker_prefix)
        self._tending = Tending(self._tend)

    async def __aenter__(self) -> Self:
        try:
            async with self._clients.setting_up():
                await self._producer.start()
                await self._subscriptions.start()
        except (TandemError, asyncio.CancelledError):
            await self._disconnect()
            raise
        self._tending.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._tending.stop()
        await self._subscriptions.stop()
        await self._replies.stop()
        await self._disconnect()

    async def _disconnect(self) -> None:
        await self._subscriptions.disconnect()
        await self._producer.stop(self._shutdown_grace_s)

    async def _tend(self) -> dict[str, Trouble]:
        found = self._subscriptions.look() | self._replies.look() | await self._declarations.declare_again()
        return found | await self._subscriptions.ask_for_the_time()

    @property
    def troubles(self) -> Mapping[str, Trouble]:
        return self._tending.troubles

    async def declare(self, channels: Sequence[str], subscriptions: Sequence[Subscription] = ()) -> None:
        await self._declarations.declare(channels, subscriptions)

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        return await self._producer.publish(messages)

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        await self._subscriptions.subscribe(subscription, handler)

    @property
    def settlement_failures(self) -> Mapping[str, int]:
        return self._subscriptions.settlement_failures

    async def publish_dead_letter(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        await self._dead_letters.publish_dead_letter(subscription, delivery, headers)

    async def publish_retry(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        await self._dead_letters.publish_retry(subscription, delivery, headers)

    async def subscribe_dead_letters(self, subscription: Subscription, group: str, handler: BatchHandler) -> None:
        await self._subscriptions.subscribe_dead_letters(subscription, group, handler)

    async def dead_letters(self, subscription: Subscription, limit: int = 100) -> list[DeadLetter]:
        return await self._dead_letters.dead_letters(subscription, limit)

    async def receive_replies(self, service: str, handler: Callable[[Reply], None]) -> None:
        await self._replies.receive_replies(service, handler)

    async def publish_request(self, message: Message, correlation_id: str, timeout_s: float) -> None:
        await self._replies.publish_request(message, correlation_id, timeout_s)

    async def publish_reply(self, asked: Asked, body: bytes) -> None:
        await self._replies.publish_reply(asked, body)

    async def queue_states(self, subscriptions: Sequence[Subscription]) -> list[QueueState]:
        return await self._inspector.queue_states(subscriptions)

    async def dead_letter_states(self, subscriptions: Sequence[Subscription], group: str) -> list[QueueState]:
        return await self._inspector.dead_letter_states(subscriptions, group)

    async def ping(self) -> None:
        await self._inspector.ping()

    def asyncapi(self, title: str, version: str, operations: Sequence[Operation]) -> dict[str, Any]:
        from shared.broker.kafka.document import document  # the generator is large, and hardly ever asked

        return document(title, version, operations, self._prefix)
