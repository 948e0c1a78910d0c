"""The RabbitMQ adapter: durable topic exchanges, quorum queues, publisher confirms, dead-letter exchanges.

FastStream owns the connection and the topology. Messages pass beside its per-message machinery in both
directions, on channels of its connection: that machinery costs half of the throughput and gives a batch
pipeline nothing.
"""

from __future__ import annotations

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
from shared.broker.rabbit.connection import HEARTBEAT_S, RECONNECT_INTERVAL_S, RabbitConnection
from shared.broker.rabbit.dead_letters import RabbitDeadLetters
from shared.broker.rabbit.declarations import RabbitDeclarations
from shared.broker.rabbit.inspector import RabbitInspector
from shared.broker.rabbit.publisher import PUBLISHES_IN_FLIGHT_MAX, RabbitPublisher
from shared.broker.rabbit.replies import RabbitReplies
from shared.broker.rabbit.restoring import Restoring
from shared.broker.rabbit.sent import PERSISTENT
from shared.broker.rabbit.subscriptions import RabbitSubscriptions
from shared.broker.tending import Tending
from shared.event import Asked
from shared.settings import Settings


def client_options(settings: Settings) -> dict[str, Any]:
    """What every connection and publish has, for reports."""
    return {
        "publisher_confirms": True,
        "mandatory": True,
        "delivery_mode": PERSISTENT,
        "publishes_in_flight_max": PUBLISHES_IN_FLIGHT_MAX,
        "heartbeat_s": HEARTBEAT_S,
        "reconnect_interval_s": RECONNECT_INTERVAL_S,
        "connect_timeout_s": settings.connect_timeout_s,
    }


class RabbitAdapter:
    """`Broker` on RabbitMQ 4.x: a part for each role, on one connection."""

    capabilities = Capabilities(
        name="rabbit",
        order_scope="queue",
        scale_out_keeps_order=False,  # single active consumer: the other replicas stand by
        replay=False,
        routes_by_type=True,
        unroutable_detected=True,
        delivery_limit=True,
        delayed_retry=False,
        request_reply=True,
    )

    def __init__(self, settings: Settings, client_name: str) -> None:
        self._prefix = settings.broker_prefix
        self._connection = RabbitConnection(settings, client_name)
        self._declarations = RabbitDeclarations(self._connection, settings)
        self._publisher = RabbitPublisher(self._declarations, settings.publish_timeout_s)
        self._restoring = Restoring(self._declarations)
        self._subscriptions = RabbitSubscriptions(
            self._connection, self._declarations, settings, self._restoring.cut_off
        )
        self._dead_letters = RabbitDeadLetters(self._connection, self._declarations, settings)
        self._replies = RabbitReplies(self._connection, self._declarations, settings.publish_timeout_s)
        self._inspector = RabbitInspector(self._connection, settings.broker_prefix)
        self._tending = Tending(self._tend)

    async def __aenter__(self) -> Self:
        await self._connection.open()
        self._tending.start()
        self._restoring.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._tending.stop()
        await self._restoring.stop()
        await self._subscriptions.stop()
        await self._replies.stop()
        await self._connection.close()

    async def _tend(self) -> dict[str, Trouble]:
        troubles = await self._declarations.declare_again()
        async with self._connection.asking():
            await self._replies.tend()
        return await self._subscriptions.tend() | troubles

    @property
    def troubles(self) -> Mapping[str, Trouble]:
        return self._tending.troubles

    async def declare(self, channels: Sequence[str], subscriptions: Sequence[Subscription] = ()) -> None:
        await self._declarations.declare(channels, subscriptions)

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        return await self._publisher.publish(messages)

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
        await self._subscriptions.subscribe_dead_letters(subscription, handler)

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
        from shared.broker.rabbit.document import document  # the generator is large, and hardly ever asked

        return document(title, version, operations, self._prefix)
