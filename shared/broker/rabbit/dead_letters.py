"""Dead letters on RabbitMQ: put in their queue, looked at there, and given back to their subscriber's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from weakref import WeakValueDictionary

from aio_pika import RobustExchange

from shared.broker.base import DEATHS, PROPERTIES_LEFT_OUT, DeadLetter, Delivery, Header, Sent, Subscription
from shared.broker.rabbit.connection import RabbitConnection
from shared.broker.rabbit.declarations import RabbitDeclarations
from shared.broker.rabbit.publisher import content_type, publish_confirmed
from shared.broker.rabbit.sent import left_out, text_headers
from shared.broker.rabbit.topology import dead_letter_queue_name, queue_name
from shared.errors import UnroutableError
from shared.settings import Settings


class RabbitDeadLetters:
    """`DeadLetterChannel`, but for the consuming of what is in it."""

    def __init__(self, connection: RabbitConnection, declarations: RabbitDeclarations, settings: Settings) -> None:
        self._connection = connection
        self._declarations = declarations
        self._publish_timeout_s = settings.publish_timeout_s
        self._prefix = settings.broker_prefix
        self._under_way = WeakValueDictionary[str, asyncio.Lock]()

    async def publish_dead_letter(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        """As `DeadLetterChannel.publish_dead_letter`."""
        exchange = self._declarations.dead_letter_exchange(subscription)
        sent = _sent(delivery)
        notes = {PROPERTIES_LEFT_OUT: said} if (said := left_out(sent)) else {}
        try:
            await self._publish_again(exchange, subscription.queue, delivery.body, sent, {**headers, **notes})
        except UnroutableError:
            self._declarations.letter_returned(subscription)
            raise

    async def publish_retry(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        """As `DeadLetterChannel.publish_retry`."""
        async with self._connection.asking(self._publish_timeout_s):
            exchange = await self._declarations.default_exchange()
        queue = queue_name(subscription, self._prefix)
        await self._publish_again(exchange, queue, delivery.body, _sent(delivery), headers)

    async def _publish_again(
        self,
        exchange: RobustExchange,
        routing_key: str,
        body: bytes,
        sent: Sent,
        headers: Mapping[str, str],
    ) -> None:
        """A message once more, with `headers` added to its own.

        Of those with one message id only one is under way: by that aiormq tells which of them was returned.
        """
        lock: AbstractAsyncContextManager[None] = nullcontext()
        if "message_id" in sent.properties:
            lock = self._under_way.setdefault(str(sent.properties["message_id"]), asyncio.Lock())
        async with self._connection.asking(self._publish_timeout_s), lock:
            await publish_confirmed(exchange, routing_key, body, headers, sent)

    async def dead_letters(self, subscription: Subscription, limit: int) -> list[DeadLetter]:
        """As `DeadLetterChannel.dead_letters`."""
        name = dead_letter_queue_name(subscription, self._prefix)
        letters: list[DeadLetter] = []
        async with self._connection.asking():
            client = await self._connection.client()
            # A channel of its own: closing it puts everything back.
            async with client.channel(publisher_confirms=False) as channel:
                queue = await channel.declare_queue(name, passive=True)
                while len(letters) < limit and (raw := await queue.get(fail=False)) is not None:
                    letters.append(DeadLetter(name, raw.body, text_headers(raw)))
        return letters


def _sent(delivery: Delivery) -> Sent:
    """How the delivery was sent; as text, where that is all that is known."""
    sent = delivery.as_sent()
    if sent is not None:
        return sent
    own = {name: text for name, text in delivery.headers.items() if not name.startswith(DEATHS)}
    return Sent(
        headers=[Header(name, "text", text) for name, text in own.items()],
        properties={"content_type": content_type(own)},
    )
