"""The RabbitMQ adapter: durable topic exchanges, quorum queues, publisher confirms, dead-letter exchanges.

FastStream owns the connection and the topology. Messages pass beside its per-message machinery in both
directions, on channels of its connection: that machinery costs half of the throughput and gives a batch
pipeline nothing.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

import aiormq
from aio_pika import RobustExchange
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError, PublishError
from aiormq import spec
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitExchange, RabbitQueue

from shared.broker.asyncapi import add_handler, asyncapi_document
from shared.broker.base import (
    DEATHS,
    BatchHandler,
    Capabilities,
    DeadLetter,
    Delivery,
    Message,
    Operation,
    PublishFailure,
    QueueState,
    Subscription,
)
from shared.broker.rabbit.consumer import LOST, RabbitConsumer, say_goodbye, text_headers
from shared.broker.rabbit.internals import channel_of, open_channel, use_connection_class
from shared.broker.rabbit.nodes import connection_class, node_urls
from shared.broker.rabbit.redeclare import keep_declared
from shared.broker.rabbit.topology import (
    dead_letter_exchange,
    dead_letter_queue,
    dead_letter_queue_name,
    event_exchange,
    subscriber_queue,
)
from shared.broker.rabbit.unreadable import read_what_is_not_utf8
from shared.envelope import CONTENT_TYPE
from shared.errors import ConfigurationError, PermanentError, UnavailableError, UnroutableError
from shared.settings import Settings

_HEARTBEAT_S = 10
_RECONNECT_INTERVAL_S = 0.5
_PUBLISHES_IN_FLIGHT_MAX = 500
_PING_TIMEOUT_S = 1.5
_PERSISTENT = 2
_ROUTING_HEADERS = {"CC": "original-cc", "BCC": "original-bcc"}
"""RabbitMQ routes by these, and closes the channel when they are not arrays; here every header is text."""
_SHORT_STRING_BYTES_MAX = 255
_NOT_ENCODABLE = (TypeError, ValueError, struct.error)


def client_options(settings: Settings) -> dict[str, Any]:
    """What every connection and publish has, for reports."""
    return {
        "publisher_confirms": True,
        "mandatory": True,
        "delivery_mode": _PERSISTENT,
        "publishes_in_flight_max": _PUBLISHES_IN_FLIGHT_MAX,
        "heartbeat_s": _HEARTBEAT_S,
        "reconnect_interval_s": _RECONNECT_INTERVAL_S,
        "connect_timeout_s": settings.connect_timeout_s,
    }


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
        read_what_is_not_utf8()
        nodes = node_urls(settings.rabbit_url or "", name=client_name, heartbeat=_HEARTBEAT_S)
        self._broker = RabbitBroker(
            str(nodes[0]),
            timeout=settings.connect_timeout_s,
            fail_fast=True,
            reconnect_interval=_RECONNECT_INTERVAL_S,
            default_channel=Channel(publisher_confirms=True, on_return_raises=True),
            graceful_timeout=settings.shutdown_grace_s,
            app_id=None,
            logger=None,
            apply_types=False,
        )
        use_connection_class(self._broker, connection_class(nodes))
        self._exchanges: dict[str, RobustExchange] = {}
        self._dead_letter_exchanges: dict[str, RobustExchange] = {}
        self._consumers: list[RabbitConsumer] = []
        self._subscriptions: list[Subscription] = []
        self._tending: asyncio.Task[None] | None = None

    @property
    def settlement_failures(self) -> Mapping[str, int]:
        failures: Counter[str] = Counter()
        for consumer in self._consumers:
            failures[consumer.queue] += consumer.settlement_failures
        return failures

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self._broker.connect()
        except LOST as error:
            await self._disconnect()
            raise _unavailable(error) from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait([self._tending])
        await asyncio.gather(*(consumer.stop(self._settings.shutdown_grace_s) for consumer in self._consumers))
        await self._disconnect()

    async def _disconnect(self) -> None:
        try:
            async with asyncio.timeout(self._settings.shutdown_grace_s):
                await self._broker.stop()
        except LOST:
            return  # nobody is there to say good-bye to

    # -- topology

    async def declare(self, channels: Sequence[str], subscriptions: Sequence[Subscription] = ()) -> None:
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                for channel in {*channels, *(subscription.channel for subscription in subscriptions)}:
                    self._exchanges[channel] = await self._broker.declare_exchange(event_exchange(channel))
                for subscription in subscriptions:
                    await self._declare_subscription(subscription)
        except ChannelPreconditionFailed as error:
            raise _differs(error) from error
        except LOST as error:
            raise _unavailable(error) from error

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

    # -- publishing

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        chains: dict[str, list[Message]] = {}
        for message in messages:
            chains.setdefault(message.key, []).append(message)
        deadline = asyncio.get_running_loop().time() + self._settings.publish_timeout_s
        slots = asyncio.Semaphore(_PUBLISHES_IN_FLIGHT_MAX)
        failures = await asyncio.gather(
            *(self._publish_chain(chain, deadline, slots) for chain in chains.values())
        )
        return [failure for part in failures for failure in part]

    async def _publish_chain(
        self, chain: Sequence[Message], deadline: float, slots: asyncio.Semaphore
    ) -> list[PublishFailure]:
        """Publish the messages of one key, each after the one before was confirmed."""
        for index, message in enumerate(chain):
            try:
                async with asyncio.timeout_at(deadline), slots:
                    await self._publish(message)
            except Exception as error:  # noqa: BLE001  whatever it is: not confirmed, so the key stops here
                reason = _unavailable(error) if isinstance(error, LOST) else error
                earlier = UnavailableError("an earlier event of its key was not confirmed")
                later = [PublishFailure(other, earlier) for other in chain[index + 1 :]]
                return [PublishFailure(message, reason), *later]
        return []

    async def _publish(self, message: Message) -> None:
        exchange = self._exchanges.get(message.channel)
        if exchange is None:
            raise UnavailableError(f"channel {message.channel} was not declared")
        await self._confirmed(exchange, message.type, message.body, message.headers)

    async def _confirmed(
        self, exchange: RobustExchange, routing_key: str, body: bytes, headers: Mapping[str, str]
    ) -> None:
        """Publish and wait for the confirmation. Raises `UnavailableError`, `PermanentError` for what AMQP cannot
        express, or one of `LOST`."""
        try:
            channel = await channel_of(exchange)
            await channel.basic_publish(
                body,
                exchange=exchange.name,
                routing_key=routing_key,
                properties=spec.Basic.Properties(
                    content_type=_content_type(headers),
                    delivery_mode=_PERSISTENT,
                    headers=dict(headers),
                ),
                mandatory=True,
                wait=False,
            )
        except PublishError as error:
            raise UnroutableError(f"RabbitMQ has no queue for {routing_key} on {exchange.name}") from error
        except DeliveryError as error:
            raise UnavailableError(f"RabbitMQ refused {routing_key} on {exchange.name}") from error
        except _NOT_ENCODABLE as error:
            raise PermanentError(f"RabbitMQ: {error!r}") from error

    async def publish_dead_letter(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        exchange = self._dead_letter_exchanges.get(subscription.channel)
        if exchange is None:
            raise UnavailableError(f"subscription {subscription.queue} was not declared")
        await self._publish_again(exchange, subscription, delivery, headers)

    async def publish_retry(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        try:
            async with asyncio.timeout(self._settings.publish_timeout_s):
                # The default exchange routes to the queue of that name, past every binding.
                exchange = await self._broker.declare_exchange(RabbitExchange())
        except LOST as error:
            raise _unavailable(error) from error
        await self._publish_again(exchange, subscription, delivery, headers)

    async def _publish_again(
        self,
        exchange: RobustExchange,
        subscription: Subscription,
        delivery: Delivery,
        headers: Mapping[str, str],
    ) -> None:
        """A delivery once more, under its subscription's queue name, without what the broker had added to it."""
        sent = {
            _ROUTING_HEADERS.get(name, name): value
            for name, value in delivery.headers.items()
            if not name.startswith(DEATHS)
        }
        try:
            async with asyncio.timeout(self._settings.publish_timeout_s):
                await self._confirmed(exchange, subscription.queue, delivery.body, {**sent, **headers})
        except LOST as error:
            raise _unavailable(error) from error

    # -- subscribing

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        await self.declare((), (subscription,))
        await self._consume(RabbitConsumer(subscription, handler))
        self._subscriptions.append(subscription)
        if self._tending is None:
            keeping = keep_declared(self._open_channel, self._subscriptions, self._settings)
            self._tending = asyncio.create_task(keeping, name="keep-declared")

    async def subscribe_dead_letters(self, subscription: Subscription, group: str, handler: BatchHandler) -> None:
        # One queue, one group: whoever consumes it competes.
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self._declare_dead_letter_place(subscription)
        except ChannelPreconditionFailed as error:
            raise _differs(error) from error
        except LOST as error:
            raise _unavailable(error) from error
        await self._consume(RabbitConsumer(subscription, handler, dead_letter_queue_name(subscription)))

    async def _consume(self, consumer: RabbitConsumer) -> None:
        self._consumers.append(consumer)
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await consumer.start(await self._broker.connect())
        except LOST as error:
            raise _unavailable(error) from error

    # -- looking

    async def dead_letters(self, subscription: Subscription, limit: int = 100) -> list[DeadLetter]:
        name = dead_letter_queue_name(subscription)
        letters: list[DeadLetter] = []
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                connection = await self._broker.connect()
                # A channel of its own: closing it puts everything back.
                async with connection.channel(publisher_confirms=False) as channel:
                    queue = await channel.declare_queue(name, passive=True)
                    while len(letters) < limit and (raw := await queue.get(fail=False)) is not None:
                        letters.append(DeadLetter(name, raw.body, text_headers(raw)))
        except LOST as error:
            raise _unavailable(error) from error
        return letters

    async def queue_states(self, subscriptions: Sequence[Subscription]) -> list[QueueState]:
        return await self._states([(s.queue, event_exchange(s.channel).name, s.subscriber) for s in subscriptions])

    async def dead_letter_states(self, subscriptions: Sequence[Subscription], group: str) -> list[QueueState]:
        exchanges = [dead_letter_exchange(s.channel).name for s in subscriptions]
        queues = [dead_letter_queue_name(s) for s in subscriptions]
        return await self._states([(q, exchange, group) for q, exchange in zip(queues, exchanges, strict=True)])

    async def _states(self, places: Sequence[tuple[str, str, str]]) -> list[QueueState]:
        """Of each queue, with the exchange and the group that belong to it."""
        states: list[QueueState] = []
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                channel = await self._open_channel()
                try:
                    for queue, exchange, group in places:
                        try:
                            counted = await channel.queue_declare(queue, passive=True)
                        except ChannelNotFoundEntity:  # which closes the channel
                            channel = await self._open_channel()
                            continue
                        messages, consumers = counted.message_count or 0, counted.consumer_count or 0
                        states.append(QueueState(queue, exchange, group, messages, consumers))
                finally:
                    await say_goodbye(channel.close())
        except LOST as error:
            raise _unavailable(error) from error
        return states

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(_PING_TIMEOUT_S):
                channel = await self._open_channel()  # a question and an answer
                await channel.close()
        except LOST as error:
            raise _unavailable(error) from error

    async def _open_channel(self) -> aiormq.abc.AbstractChannel:
        return await open_channel(await self._broker.connect())

    def asyncapi(self, title: str, version: str, operations: Sequence[Operation]) -> dict[str, Any]:
        broker = RabbitBroker("amqp://rabbitmq", specification_url="amqp://rabbitmq", logger=None)
        for operation in operations:
            exchange = event_exchange(operation.channel)
            if operation.subscriber is None:
                broker.publisher(
                    exchange=exchange,
                    routing_key=operation.event_type,
                    title=operation.event_type,
                    schema=operation.model,
                    persist=True,
                )
            else:
                queue = RabbitQueue(
                    f"{operation.subscriber}.{operation.channel}",
                    queue_type=QueueType.QUORUM,
                    durable=True,
                    routing_key=operation.event_type,
                )
                add_handler(broker.subscriber(queue, exchange, title=operation.event_type), operation)
        return asyncapi_document(broker, title, version)


def _content_type(headers: Mapping[str, str]) -> str:
    """The property: ours in place of one that does not fit; the header keeps it whole."""
    given = headers.get("content-type", CONTENT_TYPE)
    return given if len(given.encode("utf-8", "surrogatepass")) <= _SHORT_STRING_BYTES_MAX else CONTENT_TYPE


def _differs(error: Exception) -> ConfigurationError:
    return ConfigurationError(f"RabbitMQ has it with other arguments: {error}")


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(f"RabbitMQ: {error!r}")
