"""In place of an adapter for NATS, for the test of the recipe alone: its broker is this process's memory.

It keeps the obligations that the test checks, and says of the others that it does not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
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
    Settlement,
    Subscription,
    Trouble,
)
from shared.event import Asked
from shared.settings import Settings

_RETRY_PAUSE_S = 0.05


@dataclass
class _Queue:
    """What waits for one subscriber."""

    subscription: Subscription
    messages: deque[Message] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


_SERVERS: dict[str, dict[str, _Queue]] = {}
"""By URL, what a server would keep: the queues by name."""


class NatsAdapter:
    """Publishes to, and delivers from, the queues of this process."""

    capabilities = Capabilities(
        name="nats",
        order_scope="queue",
        scale_out_keeps_order=False,
        replay=False,
        routes_by_type=True,
        unroutable_detected=False,
        delivery_limit=False,
        delayed_retry=False,
        request_reply=False,
    )

    def __init__(self, settings: Settings, _client_name: str) -> None:
        assert settings.nats_url, "the settings have checked that it is there"  # type: ignore[attr-defined]
        self._queues = _SERVERS.setdefault(settings.nats_url, {})  # type: ignore[attr-defined]
        self._consumers: list[asyncio.Task[None]] = []

    @property
    def settlement_failures(self) -> Mapping[str, int]:
        return {}

    @property
    def troubles(self) -> Mapping[str, Trouble]:
        return {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        for consumer in self._consumers:
            consumer.cancel()
            with suppress(asyncio.CancelledError):
                await consumer

    async def declare(self, _channels: Sequence[str], subscriptions: Sequence[Subscription] = ()) -> None:
        for subscription in subscriptions:
            self._queues.setdefault(subscription.queue, _Queue(subscription))

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        for message in messages:
            for queue in self._queues.values():
                if queue.subscription.channel == message.channel and message.type in queue.subscription.types:
                    queue.messages.append(message)
                    queue.changed.set()
        return []

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        await self.declare([], [subscription])
        queue = self._queues[subscription.queue]
        self._consumers.append(asyncio.create_task(_consume(queue, subscription.batch_max, handler)))

    async def ping(self) -> None:
        return

    async def queue_states(self, subscriptions: Sequence[Subscription]) -> list[QueueState]:
        raise NotImplementedError

    async def dead_letter_states(self, subscriptions: Sequence[Subscription], group: str) -> list[QueueState]:
        raise NotImplementedError

    async def publish_dead_letter(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        raise NotImplementedError

    async def publish_retry(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        raise NotImplementedError

    async def receive_replies(self, service: str, handler: Callable[[Reply], None]) -> None:
        raise NotImplementedError

    async def publish_request(self, message: Message, correlation_id: str, timeout_s: float) -> None:
        raise NotImplementedError

    async def publish_reply(self, asked: Asked, body: bytes) -> None:
        raise NotImplementedError

    async def subscribe_dead_letters(self, subscription: Subscription, group: str, handler: BatchHandler) -> None:
        raise NotImplementedError

    async def dead_letters(self, subscription: Subscription, limit: int = 100) -> list[DeadLetter]:
        raise NotImplementedError

    def asyncapi(self, title: str, version: str, operations: Sequence[Operation]) -> dict[str, Any]:
        raise NotImplementedError


async def _consume(queue: _Queue, batch_max: int, handler: BatchHandler) -> None:
    while True:
        while not queue.messages:
            queue.changed.clear()
            await queue.changed.wait()
        batch = [queue.messages.popleft() for _ in range(min(batch_max, len(queue.messages)))]
        settlements = await handler([_delivery(queue, message) for message in batch])
        again = [message for message, answer in zip(batch, settlements, strict=True) if answer is Settlement.RETRY]
        queue.messages.extendleft(reversed(again))
        if again:
            await asyncio.sleep(_RETRY_PAUSE_S)


def _delivery(queue: _Queue, message: Message) -> Delivery:
    return Delivery(
        body=message.body,
        headers=dict(message.headers),
        channel=message.channel,
        key=message.key,
        redelivered=False,
        position=queue.subscription.queue,
        token=None,
    )
