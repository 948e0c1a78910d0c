"""Declares exchanges and queues, keeps the exchanges to publish to, and declares again what others removed.

An operator who deletes a binding or a queue, or a policy that expires one, would otherwise stop the stream until
somebody restarts the process: publishers keep their events (they are mandatory), and nothing repairs the route.
aio-pika resumes a consumer whose queue went and came back by itself. A channel that the server closed it opens
again once, with all that was declared on it, and leaves closed if that fails: nothing more would be published.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import aiormq
from aio_pika import RobustExchange
from aio_pika.exceptions import AMQPChannelError, ChannelNotFoundEntity, ChannelPreconditionFailed
from faststream.rabbit import RabbitExchange, RabbitQueue

from shared.broker.base import Subscription, Trouble
from shared.broker.rabbit.connection import RabbitConnection, say_goodbye
from shared.broker.rabbit.doubts import Anew, Doubts
from shared.broker.rabbit.internals import open_again
from shared.broker.rabbit.topology import dead_letter_exchange, dead_letter_queue, event_exchange, subscriber_queue
from shared.errors import UnavailableError
from shared.settings import Settings

_Step = Callable[[aiormq.abc.AbstractChannel], Awaitable[Any]]


class RabbitDeclarations:
    """What was declared on a connection. FastStream asks the server for each exchange and queue only once."""

    def __init__(self, connection: RabbitConnection, settings: Settings) -> None:
        self._connection = connection
        self._broker = connection.faststream
        self._settings = settings
        self._prefix = settings.broker_prefix
        self._exchanges: dict[str, RobustExchange] = {}
        self._dead_letter_exchanges: dict[str, RobustExchange] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._places: dict[str, Subscription] = {}
        """Whose dead-letter places, by the subscriptions' queues."""
        self._doubts = Doubts()

    async def declare(self, channels: Sequence[str], subscriptions: Sequence[Subscription]) -> None:
        """As `Broker.declare`."""
        async with self._connection.setting_up():
            for channel in {*channels, *(subscription.channel for subscription in subscriptions)}:
                exchange = event_exchange(channel, self._prefix)
                self._exchanges[channel] = await self._broker.declare_exchange(exchange)
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
        self._subscriptions[subscription.queue] = subscription

    async def _declare_dead_letter_place(self, subscription: Subscription) -> None:
        dlx = await self._broker.declare_exchange(dead_letter_exchange(subscription.channel, self._prefix))
        self._dead_letter_exchanges[subscription.channel] = dlx
        dlq = await self._broker.declare_queue(dead_letter_queue(subscription, self._settings))
        await dlq.bind(dlx, routing_key=subscription.queue)
        self._places[subscription.queue] = subscription

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

    async def declare_again(self) -> dict[str, Trouble]:
        """All that was declared, in case that somebody removed it, and the channel to publish on, in case that it
        was left closed; by its name what could not be. Raises `UnavailableError`."""
        troubles: dict[str, Trouble] = {}
        async with self._connection.asking():
            if await self._is_something_gone():
                self._doubts.gone()
            channel = await self._connection.open_channel()
            try:
                for name, step in self._steps(self._doubts.take()):
                    if channel.is_closed:  # the server closes it with every refusal
                        channel = await self._connection.open_channel()
                    try:
                        await step(channel)
                    except ChannelPreconditionFailed as error:  # the start of a process refuses that
                        troubles[name] = Trouble(f"is there with other arguments: {error}", stops=False)
                    except AMQPChannelError as error:
                        troubles.setdefault(name, Trouble(f"cannot be declared: {error!r}"))
            finally:
                await say_goodbye(channel.close())
            try:
                await self._open_again()
            except AMQPChannelError as error:
                troubles["publisher"] = Trouble(f"its channel cannot be opened again: {error!r}")
        return troubles

    async def _is_something_gone(self) -> bool:
        channel = await self._connection.open_channel()
        try:
            for look in self._looks():
                await look(channel)
        except ChannelNotFoundEntity:
            return True
        except AMQPChannelError:  # declaring it will tell
            return False
        finally:
            await say_goodbye(channel.close())
        return False

    async def _open_again(self) -> None:
        """The channel of the exchanges: FastStream has one for all."""
        exchanges = [*self._exchanges.values(), *self._dead_letter_exchanges.values()]
        if exchanges:
            await open_again(exchanges[0])

    def letter_returned(self, subscription: Subscription) -> None:
        """A dead letter came back as if its place were not bound."""
        self._doubts.returned(dead_letter_exchange(subscription.channel, self._prefix).name, subscription.queue)

    def _looks(self) -> Iterator[_Step]:
        """At each exchange and queue."""
        for channel in self._exchanges:
            yield _look_at_exchange(event_exchange(channel, self._prefix))
        for place in self._places.values():
            yield _look_at_exchange(dead_letter_exchange(place.channel, self._prefix))
            yield _look_at_queue(dead_letter_queue(place, self._settings))
        for subscription in self._subscriptions.values():
            yield _look_at_queue(subscriber_queue(subscription, self._settings))

    def _steps(self, anew: Anew) -> Iterator[tuple[str, _Step]]:
        """As `declare` does it through FastStream, which remembers what it declared."""
        for channel in self._exchanges:
            yield _exchange(event_exchange(channel, self._prefix))
        for place in self._places.values():
            dlx = dead_letter_exchange(place.channel, self._prefix)
            dlq = dead_letter_queue(place, self._settings)
            yield _exchange(dlx)
            yield _queue(dlq)
            yield _binding(dlq, dlx, place.queue, anew)
        for subscription in self._subscriptions.values():
            queue = subscriber_queue(subscription, self._settings)
            yield _queue(queue)
            for event_type in sorted(subscription.types):
                yield _binding(queue, event_exchange(subscription.channel, self._prefix), event_type, anew)


def _exchange(exchange: RabbitExchange) -> tuple[str, _Step]:
    return exchange.name, lambda channel: channel.exchange_declare(exchange.name, **_exchange_options(exchange))


def _queue(queue: RabbitQueue) -> tuple[str, _Step]:
    return queue.name, lambda channel: channel.queue_declare(queue.name, **_queue_options(queue))


def _binding(queue: RabbitQueue, exchange: RabbitExchange, routing_key: str, anew: Anew) -> tuple[str, _Step]:
    async def bind(channel: aiormq.abc.AbstractChannel) -> None:
        if anew(exchange.name, routing_key):
            await channel.queue_unbind(queue.name, exchange.name, routing_key)
        await channel.queue_bind(queue.name, exchange.name, routing_key)

    return queue.name, bind


def _look_at_exchange(exchange: RabbitExchange) -> _Step:
    return lambda channel: channel.exchange_declare(exchange.name, passive=True)


def _look_at_queue(queue: RabbitQueue) -> _Step:
    return lambda channel: channel.queue_declare(queue.name, passive=True)


def _exchange_options(exchange: RabbitExchange) -> dict[str, Any]:
    return {"exchange_type": exchange.type.value, "durable": exchange.durable, "arguments": exchange.arguments}


def _queue_options(queue: RabbitQueue) -> dict[str, Any]:
    return {"durable": queue.durable, "arguments": queue.arguments}
