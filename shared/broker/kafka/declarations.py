"""Declares topics, and remembers which may be published to."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka.admin import NewTopic

from shared.broker.base import Subscription
from shared.broker.kafka.clients import KafkaClients
from shared.broker.kafka.producer import KafkaProducer
from shared.broker.kafka.topics import create_missing, own_topics, retry_topic, topics_for
from shared.errors import UnavailableError
from shared.settings import Settings


class KafkaDeclarations:
    """What was declared by this process: to a topic that is not there, aiokafka would make all other messages
    wait for it."""

    def __init__(self, clients: KafkaClients, producer: KafkaProducer, settings: Settings) -> None:
        self._clients = clients
        self._producer = producer
        self._settings = settings
        self._retry_topics: set[str] = set()

    async def declare(self, channels: Sequence[str], subscriptions: Sequence[Subscription]) -> None:
        """As `Broker.declare`."""
        await self._create(topics_for(channels, subscriptions, self._settings))
        self._producer.channels.update(channels, (s.channel for s in subscriptions))
        self._retry_topics.update(retry_topic(s) for s in subscriptions)

    async def declare_dead_letter_place(self, subscription: Subscription) -> None:
        """The place and the way back from it, without the channel. Raises as `declare`."""
        await self._create(own_topics(subscription, self._settings))
        self._retry_topics.add(retry_topic(subscription))

    async def _create(self, topics: Sequence[NewTopic]) -> None:
        async with self._clients.admin() as admin, self._clients.setting_up():
            await admin.start()
            await create_missing(admin, topics)

    def retry_topic(self, subscription: Subscription) -> str:
        """What leads back to the subscriber. Raises `UnavailableError` if it was not declared."""
        topic = retry_topic(subscription)
        if topic not in self._retry_topics:
            raise UnavailableError(f"subscription {subscription.queue} was not declared")
        return topic
