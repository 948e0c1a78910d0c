"""How RabbitMQ's queues stand, asked of the queues themselves: the management API tells of seconds ago."""

from __future__ import annotations

from collections.abc import Sequence

from aio_pika.exceptions import ChannelNotFoundEntity

from shared.broker.base import QueueState, Subscription
from shared.broker.rabbit.connection import RabbitConnection, say_goodbye
from shared.broker.rabbit.topology import dead_letter_exchange, dead_letter_queue_name, event_exchange

_PING_TIMEOUT_S = 1.5


class RabbitInspector:
    """`Inspector`."""

    def __init__(self, connection: RabbitConnection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def queue_states(self, subscriptions: Sequence[Subscription]) -> list[QueueState]:
        """As `Inspector.queue_states`."""
        return await self._states(
            [(s.queue, event_exchange(s.channel, self._prefix).name, s.subscriber) for s in subscriptions]
        )

    async def dead_letter_states(self, subscriptions: Sequence[Subscription], group: str) -> list[QueueState]:
        """As `Inspector.dead_letter_states`."""
        return await self._states(
            [
                (dead_letter_queue_name(s, ""), dead_letter_exchange(s.channel, self._prefix).name, group)
                for s in subscriptions
            ]
        )

    async def _states(self, places: Sequence[tuple[str, str, str]]) -> list[QueueState]:
        """Of each queue, named without the prefix, with the exchange and the group that belong to it."""
        states: list[QueueState] = []
        async with self._connection.asking():
            channel = await self._connection.open_channel()
            try:
                for queue, exchange, group in places:
                    try:
                        counted = await channel.queue_declare(f"{self._prefix}{queue}", passive=True)
                    except ChannelNotFoundEntity:  # which closes the channel
                        channel = await self._connection.open_channel()
                        continue
                    messages, consumers = counted.message_count or 0, counted.consumer_count or 0
                    states.append(QueueState(queue, exchange, group, messages, consumers))
            finally:
                await say_goodbye(channel.close())
        return states

    async def ping(self) -> None:
        """As `Inspector.ping`."""
        async with self._connection.asking(_PING_TIMEOUT_S):
            channel = await self._connection.open_channel()  # a question and an answer
            await channel.close()
