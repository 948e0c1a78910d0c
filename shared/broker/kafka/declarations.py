"""Declares topics, remembers which may be published to, and declares again what somebody deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka.admin import NewTopic

from shared.broker.base import Subscription, Trouble
from shared.broker.kafka.clients import KafkaClients
from shared.broker.kafka.producer import KafkaProducer
from shared.broker.kafka.topics import (
    create_missing,
    dead_letter_topic,
    own_topics,
    retry_topic,
    topic_of_replies,
    topics_for,
)
from shared.errors import TandemError, UnavailableError
from shared.settings import Settings

_GONE_S = 2.0
"""So long a topic stays deleted: whoever reads it hears of that with the next fetch, and begins anew. Made again
at once, it would be read on from an offset of the old one, past what is new."""


class KafkaDeclarations:
    """What was declared by this process: to a topic that is not there, aiokafka would make all other messages
    wait for it."""

    def __init__(self, clients: KafkaClients, producer: KafkaProducer, settings: Settings) -> None:
        self._clients = clients
        self._producer = producer
        self._settings = settings
        self._retry_topics: set[str] = set()
        self._topics: dict[str, NewTopic] = {}

    async def declare(self, channels: Sequence[str], subscriptions: Sequence[Subscription]) -> None:
        """As `Broker.declare`."""
        await self._create(topics_for(channels, subscriptions, self._settings))
        self._producer.channels.update(channels, (s.channel for s in subscriptions))
        self._retry_topics.update(retry_topic(s, self._settings.broker_prefix) for s in subscriptions)

    async def declare_dead_letter_place(self, subscription: Subscription) -> None:
        """The place and the way back from it, without the channel. Raises as `declare`."""
        await self._create(own_topics(subscription, self._settings))
        self._retry_topics.add(retry_topic(subscription, self._settings.broker_prefix))

    async def declare_replies(self, service: str) -> NewTopic:
        """The topic in which a service's processes get their answers. Raises as `declare`."""
        topic = topic_of_replies(service, self._settings)
        await self._create([topic])
        return topic

    async def _create(self, topics: Sequence[NewTopic]) -> None:
        async with self._clients.admin() as admin, self._clients.setting_up():
            await admin.start()
            await create_missing(admin, topics)
        self._topics.update((topic.name, topic) for topic in topics)

    async def declare_again(self) -> dict[str, Trouble]:
        """What was declared and is not there any more; by its name what is not as it was declared. Raises
        `UnavailableError`."""
        async with self._clients.asking():
            there = await self._producer.topics()
        missing = [topic for name, topic in self._topics.items() if name not in there]
        troubles: dict[str, Trouble] = {}
        if missing:
            await asyncio.sleep(_GONE_S)
            for topic in missing:
                try:
                    await self._create([topic])
                except TandemError as error:
                    troubles[topic.name] = Trouble(f"is missing: {error}")
        for name, (partitions, without_leader) in there.items():
            declared = self._topics.get(name)
            if declared is not None and without_leader:
                troubles[name] = Trouble(f"has {without_leader} partitions without a leader")
            elif declared is not None and partitions != declared.num_partitions:
                reason = f"has {partitions} partitions, the settings say {declared.num_partitions}"
                troubles[name] = Trouble(reason, stops=False)
        return troubles

    def dead_letter_topic(self, subscription: Subscription) -> str:
        """Where the subscriber's dead letters go, declared or not."""
        return dead_letter_topic(subscription, self._settings.broker_prefix)

    def retry_topic(self, subscription: Subscription) -> str:
        """What leads back to the subscriber. Raises `UnavailableError` if it was not declared."""
        topic = retry_topic(subscription, self._settings.broker_prefix)
        if topic not in self._retry_topics:
            raise UnavailableError(f"subscription {subscription.queue} was not declared")
        return topic
