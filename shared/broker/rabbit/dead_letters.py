"""Dead letters on RabbitMQ: put in their queue, looked at there, and given back to their subscriber's queue."""

from __future__ import annotations

from collections.abc import Mapping

from aio_pika import RobustExchange

from shared.broker.base import DEATHS, DeadLetter, Delivery, Subscription
from shared.broker.rabbit.connection import RabbitConnection
from shared.broker.rabbit.consumer import text_headers
from shared.broker.rabbit.declarations import RabbitDeclarations
from shared.broker.rabbit.publisher import publish_confirmed
from shared.broker.rabbit.topology import dead_letter_queue_name

_ROUTING_HEADERS = {"CC": "original-cc", "BCC": "original-bcc"}
"""RabbitMQ routes by these, and closes the channel when they are not arrays; here every header is text."""


class RabbitDeadLetters:
    """`DeadLetterChannel`, but for the consuming of what is in it."""

    def __init__(
        self, connection: RabbitConnection, declarations: RabbitDeclarations, publish_timeout_s: float
    ) -> None:
        self._connection = connection
        self._declarations = declarations
        self._publish_timeout_s = publish_timeout_s

    async def publish_dead_letter(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        """As `DeadLetterChannel.publish_dead_letter`."""
        exchange = self._declarations.dead_letter_exchange(subscription)
        await self._publish_again(exchange, subscription, delivery, headers)

    async def publish_retry(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        """As `DeadLetterChannel.publish_retry`."""
        async with self._connection.asking(self._publish_timeout_s):
            exchange = await self._declarations.default_exchange()
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
        async with self._connection.asking(self._publish_timeout_s):
            await publish_confirmed(exchange, subscription.queue, delivery.body, {**sent, **headers})

    async def dead_letters(self, subscription: Subscription, limit: int) -> list[DeadLetter]:
        """As `DeadLetterChannel.dead_letters`."""
        name = dead_letter_queue_name(subscription)
        letters: list[DeadLetter] = []
        async with self._connection.asking():
            client = await self._connection.client()
            # A channel of its own: closing it puts everything back.
            async with client.channel(publisher_confirms=False) as channel:
                queue = await channel.declare_queue(name, passive=True)
                while len(letters) < limit and (raw := await queue.get(fail=False)) is not None:
                    letters.append(DeadLetter(name, raw.body, text_headers(raw)))
        return letters
