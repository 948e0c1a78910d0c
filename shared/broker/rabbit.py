"""The RabbitMQ adapter: durable topic exchanges, quorum queues, publisher confirms, dead-letter exchanges.

FastStream owns connections, channels and topology. Deliveries are pulled from a subscriber without handlers,
which costs half of what a handler does; a batch is what has arrived by the time the pipeline is free.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Self

import structlog
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, DeliveryError
from aiormq.exceptions import ChannelInvalidStateError
from faststream import AckPolicy
from faststream.rabbit import Channel, ExchangeType, QueueType, RabbitBroker, RabbitExchange, RabbitQueue

from shared.broker.asyncapi import add_handlers, asyncapi_document
from shared.broker.base import (
    BatchHandler,
    Capabilities,
    DeadLetter,
    Delivery,
    Message,
    Operation,
    PublishFailure,
    Settlement,
    Subscription,
    destination_name,
)
from shared.broker.batches import settle_as_retry
from shared.envelope import CONTENT_TYPE
from shared.errors import UnavailableError
from shared.settings import Settings

_log = structlog.get_logger(__name__)

_LOST = (
    AMQPError,
    ChannelInvalidStateError,
    ConnectionError,
    OSError,
    TimeoutError,
    asyncio.InvalidStateError,
)
"""What aio-pika raises when the connection or the channel is gone."""

_HEARTBEAT_S = 10
_PUBLISHES_IN_FLIGHT_MAX = 500
_GATHER_WAIT_S = 0.003
_BUSY_BATCH = 32
_RETRY_PAUSE_S = 1.0
_RESUBSCRIBE_PAUSE_S = 1.0
_BROKER_DELIVERY_LIMIT = 50
"""Quorum `x-delivery-limit`: the net under our own attempt counter, so well above it."""


def _exchange(channel: str) -> RabbitExchange:
    return RabbitExchange(destination_name("rabbit", channel), type=ExchangeType.TOPIC, durable=True)


def _dead_letter_exchange(channel: str) -> RabbitExchange:
    return RabbitExchange(f"{channel}.dlx", type=ExchangeType.DIRECT, durable=True)


class RabbitAdapter:
    """`Broker` on RabbitMQ 4.x."""

    capabilities = Capabilities(
        name="rabbit",
        order_scope="queue",
        scale_out_keeps_order=False,  # single active consumer: the other replicas stand by
        replay=False,
        routes_by_type=True,
        unroutable_detected=True,
        delivery_limit=True,
        delayed_retry=False,
        request_reply=False,
    )

    def __init__(self, settings: Settings, client_name: str) -> None:
        self._settings = settings
        self._broker = RabbitBroker(
            f"{settings.rabbit_url}?name={client_name}",
            timeout=settings.connect_timeout_s,
            fail_fast=True,
            reconnect_interval=0.5,
            client_properties={"heartbeat": _HEARTBEAT_S},
            default_channel=Channel(publisher_confirms=True, on_return_raises=True),
            graceful_timeout=settings.shutdown_grace_s,
            app_id=None,
            logger=None,
            apply_types=False,
        )
        self._exchanges: dict[str, RabbitExchange] = {}
        self._queues: dict[str, RabbitQueue] = {}
        self._consumers: list[_Consumer] = []

    @property
    def settlement_failures(self) -> int:
        return sum(consumer.settlement_failures for consumer in self._consumers)

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self._broker.start()
        except _LOST as error:
            await self._broker.stop()
            raise UnavailableError(f"RabbitMQ: {error or type(error).__name__}") from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.gather(*(consumer.stop(self._settings.shutdown_grace_s) for consumer in self._consumers))
        with contextlib.suppress(*_LOST):
            await self._broker.stop()

    # -- topology

    def _queue(self, subscription: Subscription) -> RabbitQueue:
        return RabbitQueue(
            subscription.queue,
            queue_type=QueueType.QUORUM,
            durable=True,
            arguments={
                "x-dead-letter-exchange": _dead_letter_exchange(subscription.channel).name,
                "x-dead-letter-routing-key": subscription.queue,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",  # at-least-once dead-lettering asks for it
                "x-message-ttl": int(self._settings.message_ttl_s * 1_000),
                "x-delivery-limit": _BROKER_DELIVERY_LIMIT,
                "x-single-active-consumer": subscription.ordered,
            },
        )

    def _dead_letter_queue(self, subscription: Subscription) -> RabbitQueue:
        return RabbitQueue(
            f"{subscription.queue}.dlq",
            queue_type=QueueType.QUORUM,
            durable=True,
            arguments={
                "x-message-ttl": int(self._settings.dead_letter_ttl_s * 1_000),
                "x-delivery-limit": -1,  # looking at a letter must not use it up
            },
        )

    async def declare(self, channels: Sequence[str], subscriptions: Sequence[Subscription] = ()) -> None:
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                for channel in {*channels, *(subscription.channel for subscription in subscriptions)}:
                    self._exchanges[channel] = _exchange(channel)
                    await self._broker.declare_exchange(self._exchanges[channel])
                for subscription in subscriptions:
                    await self._declare_subscription(subscription)
        except _LOST as error:
            raise UnavailableError(f"RabbitMQ: {error or type(error).__name__}") from error

    async def _declare_subscription(self, subscription: Subscription) -> None:
        exchange = await self._broker.declare_exchange(_exchange(subscription.channel))
        dead_letter_exchange = await self._broker.declare_exchange(_dead_letter_exchange(subscription.channel))
        dead_letter_queue = await self._broker.declare_queue(self._dead_letter_queue(subscription))
        await dead_letter_queue.bind(dead_letter_exchange, routing_key=subscription.queue)
        self._queues[subscription.queue] = self._queue(subscription)
        queue = await self._broker.declare_queue(self._queues[subscription.queue])
        for event_type in sorted(subscription.types):
            await queue.bind(exchange, routing_key=event_type)

    # -- publishing

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        failures: list[PublishFailure] = []
        failed_keys: set[str] = set()
        for wave in _waves(messages):
            ready = [message for message in wave if message.key not in failed_keys]
            failures += [
                PublishFailure(message, UnavailableError("an earlier event of its key was not confirmed"))
                for message in wave
                if message.key in failed_keys
            ]
            for start in range(0, len(ready), _PUBLISHES_IN_FLIGHT_MAX):
                part = ready[start : start + _PUBLISHES_IN_FLIGHT_MAX]
                results = await asyncio.gather(
                    *(self._publish(message) for message in part), return_exceptions=True
                )
                for message, result in zip(part, results, strict=True):
                    if isinstance(result, Exception):
                        failures.append(PublishFailure(message, result))
                        failed_keys.add(message.key)
                    elif isinstance(result, BaseException):
                        raise result
        return failures

    async def _publish(self, message: Message) -> None:
        exchange = self._exchanges.get(message.channel)
        if exchange is None:
            raise UnavailableError(f"channel {message.channel} was not declared")
        await self._publish_to(exchange, message.type, message.body, message.headers)

    async def _publish_to(
        self, exchange: RabbitExchange, routing_key: str, body: bytes, headers: Mapping[str, str]
    ) -> None:
        try:
            await self._broker.publish(
                body,
                exchange=exchange,
                routing_key=routing_key,
                headers=dict(headers),
                content_type=headers.get("content-type", CONTENT_TYPE),
                persist=True,
                mandatory=True,
                timeout=self._settings.publish_timeout_s,
            )
        except DeliveryError as error:
            raise UnavailableError(f"RabbitMQ returned or refused {routing_key}: no queue takes it now") from error
        except _LOST as error:
            raise UnavailableError(f"RabbitMQ: {error or type(error).__name__}") from error

    async def publish_dead_letter(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        exchange = _dead_letter_exchange(subscription.channel)
        await self._publish_to(exchange, subscription.queue, delivery.body, {**delivery.headers, **headers})

    # -- subscribing

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        await self.declare((), (subscription,))
        subscriber = self._broker.subscriber(
            self._queues[subscription.queue],
            channel=Channel(prefetch_count=subscription.in_flight_max),
            ack_policy=AckPolicy.MANUAL,
            persistent=False,
        )
        try:
            await subscriber.start()
        except _LOST as error:
            raise UnavailableError(f"RabbitMQ: {error or type(error).__name__}") from error
        consumer = _Consumer(subscription, subscriber, handler)
        self._consumers.append(consumer)
        consumer.start()

    # -- looking

    async def dead_letters(self, subscription: Subscription, limit: int = 100) -> list[DeadLetter]:
        name = f"{subscription.queue}.dlq"
        letters: list[DeadLetter] = []
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                connection = await self._broker.connect()
                channel = await connection.channel()
                try:
                    queue = await channel.get_queue(name, ensure=True)
                    while len(letters) < limit and (raw := await queue.get(no_ack=False, fail=False)) is not None:
                        letters.append(DeadLetter(name, raw.body, _text_headers(raw)))
                finally:
                    await channel.close()  # puts everything back
        except _LOST as error:
            raise UnavailableError(f"RabbitMQ: {error or type(error).__name__}") from error
        return letters

    async def ping(self) -> None:
        if not await self._broker.ping(timeout=1.0):
            raise UnavailableError("RabbitMQ: not connected")

    def asyncapi(self, title: str, version: str, operations: Sequence[Operation]) -> dict[str, Any]:
        broker = RabbitBroker(self._settings.rabbit_url, specification_url="amqp://rabbitmq", logger=None)
        for operation in operations:
            exchange = _exchange(operation.channel)
            if operation.subscriber is None:
                broker.publisher(
                    exchange=exchange,
                    routing_key=operation.event_type,
                    title=operation.event_type,
                    schema=operation.model,
                )
        for subscriber, channel in sorted({(o.subscriber, o.channel) for o in operations if o.subscriber}):
            wanted = [o for o in operations if (o.subscriber, o.channel) == (subscriber, channel)]
            subscription = Subscription(
                channel=channel, subscriber=subscriber, types=frozenset(o.event_type for o in wanted)
            )
            add_handlers(broker.subscriber(self._queue(subscription), _exchange(channel)), wanted)
        return asyncapi_document(broker, title, version)


class _Consumer:
    """Pulls one subscription's deliveries, hands them over batch by batch and settles them."""

    def __init__(self, subscription: Subscription, subscriber: Any, handler: BatchHandler) -> None:
        self._subscription = subscription
        self._subscriber = subscriber
        self._handler = handler
        self._waiting: deque[AbstractIncomingMessage] = deque()
        self._arrived = asyncio.Event()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.settlement_failures = 0

    def start(self) -> None:
        name = self._subscription.queue
        self._tasks = [
            asyncio.create_task(self._pull(), name=f"pull-{name}"),
            asyncio.create_task(self._work(), name=f"work-{name}"),
        ]

    async def stop(self, grace_s: float) -> None:
        """Stop pulling, let the running batch settle, give back what waits."""
        self._stopping.set()
        self._arrived.set()
        pull, work = self._tasks
        pull.cancel()
        await asyncio.wait([pull, work], timeout=grace_s)
        work.cancel()
        await asyncio.gather(pull, work, return_exceptions=True)
        for raw in self._waiting:
            with contextlib.suppress(*_LOST):
                await raw.nack(requeue=True)
        with contextlib.suppress(*_LOST):
            await self._subscriber.stop()

    async def _pull(self) -> None:
        while not self._stopping.is_set():
            try:
                async for message in self._subscriber:
                    self._waiting.append(message.raw_message)
                    self._arrived.set()
            except _LOST as error:
                _log.warning("rabbit.consumer_lost", queue=self._subscription.queue, error=str(error))
            await asyncio.sleep(_RESUBSCRIBE_PAUSE_S)

    async def _gather(self, last_count: int) -> list[AbstractIncomingMessage]:
        """What is ready now, up to a batch; a few milliseconds more while the stream is dense."""
        await self._arrived.wait()
        if last_count >= _BUSY_BATCH and len(self._waiting) < self._subscription.batch_max:
            await asyncio.sleep(_GATHER_WAIT_S)
        batch: list[AbstractIncomingMessage] = []
        while self._waiting and len(batch) < self._subscription.batch_max:
            raw = self._waiting.popleft()
            if not raw.channel.is_closed:  # else the broker has already given it to someone else
                batch.append(raw)
        if not self._waiting and not self._stopping.is_set():
            self._arrived.clear()
        return batch

    async def _work(self) -> None:
        last_count = 0
        while not self._stopping.is_set():
            batch = await self._gather(last_count)
            last_count = len(batch)
            if not batch:
                continue
            if self._stopping.is_set():
                self._waiting.extendleft(reversed(batch))
                return
            deliveries = [_delivery(raw, self._subscription) for raw in batch]
            settlements = await settle_as_retry(self._handler, deliveries)
            await self._settle(batch, settlements)

    async def _settle(self, batch: list[AbstractIncomingMessage], settlements: Sequence[Settlement]) -> None:
        """One `ack(multiple)` per channel, after the rejects, so that it covers the acknowledged ones only."""
        if Settlement.RETRY in settlements and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _RETRY_PAUSE_S)
        last_acked: dict[int, AbstractIncomingMessage] = {}
        failed = 0
        for raw, settlement in zip(batch, settlements, strict=True):
            if settlement is Settlement.ACK:
                last_acked[id(raw.channel)] = raw
                continue
            try:
                await raw.nack(requeue=True)
            except _LOST:
                failed += 1
        for raw in last_acked.values():
            try:
                await raw.ack(multiple=True)
            except _LOST:
                failed += sum(other.channel is raw.channel for other in batch)
        if failed:
            self.settlement_failures += failed
            _log.warning("rabbit.settlement_failed", queue=self._subscription.queue, count=failed)


def _waves(messages: Sequence[Message]) -> list[list[Message]]:
    """Split so that no wave holds two messages of one key, in order."""
    waves: list[list[Message]] = []
    seen: dict[str, int] = {}
    for message in messages:
        wave = seen.get(message.key, 0)
        seen[message.key] = wave + 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(message)
    return waves


def _text_headers(raw: AbstractIncomingMessage) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in (raw.headers or {}).items():
        if isinstance(value, bytes):
            headers[name] = value.decode("utf-8", "backslashreplace")
        elif isinstance(value, str):
            headers[name] = value
        else:
            headers[name] = str(value)
    return headers


def _delivery(raw: AbstractIncomingMessage, subscription: Subscription) -> Delivery:
    return Delivery(
        body=raw.body,
        headers=_text_headers(raw),
        channel=subscription.channel,
        key=None,
        redelivered=bool(raw.redelivered),
        position=f"{subscription.queue}#{raw.delivery_tag}",
        token=raw,
    )
