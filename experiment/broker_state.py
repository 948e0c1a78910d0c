"""Looks into the brokers from outside: how much waits for the notification service, and which events those are."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol
from urllib.parse import urlsplit

import aio_pika
import httpx
from aio_pika.abc import AbstractIncomingMessage
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.native import BrokerName, Runtime
from deploy.topology import SUBSCRIPTIONS
from experiment.effects import SUBSCRIBER, identities
from experiment.ledger import Identity
from shared.broker.base import Subscription, destination_name
from shared.broker.connect import create_broker
from shared.broker.kafka.topics import subscribed_topics
from shared.settings import Settings

_PLACES = tuple(
    Subscription(channel=channel, subscriber=subscriber, types=frozenset())
    for subscriber, channel in SUBSCRIPTIONS
    if subscriber == SUBSCRIBER
)
_CHANNELS = tuple(place.channel for place in _PLACES)
_TIMEOUT_S = 15.0
_PEEK_MAX = 50_000


class BrokerState(Protocol):
    """What waits for the subscriber `notification` on one broker, while its consumer is stopped."""

    async def waiting(self) -> int:
        """How many events wait."""

    async def peek(self) -> set[Identity]:
        """Which events those are (at most 50,000 of a channel); everything stays where it is."""


class RabbitState:
    """Over AMQP. What a running consumer has been given and not yet acknowledged is not counted."""

    def __init__(self, amqp_url: str) -> None:
        self._amqp_url = amqp_url

    async def waiting(self) -> int:
        # A passive declaration asks the queue itself; the management API would tell a number of seconds ago.
        async with await aio_pika.connect(self._amqp_url, timeout=_TIMEOUT_S) as connection:
            channel = await connection.channel()
            queues = [await channel.get_queue(f"{SUBSCRIBER}.{name}") for name in _CHANNELS]
            return sum(queue.declaration_result.message_count or 0 for queue in queues)

    async def peek(self) -> set[Identity]:
        bodies: list[bytes] = []
        async with await aio_pika.connect(self._amqp_url, timeout=_TIMEOUT_S) as connection:
            channel = await connection.channel()
            for name in _CHANNELS:
                queue = await channel.get_queue(f"{SUBSCRIBER}.{name}")
                arrived: asyncio.Queue[bytes] = asyncio.Queue()

                async def take(message: AbstractIncomingMessage, arrived: asyncio.Queue[bytes] = arrived) -> None:
                    await arrived.put(message.body)

                # basic.get is refused on a queue with a single active consumer; closing puts everything back.
                await queue.consume(take)
                count = min(queue.declaration_result.message_count or 0, _PEEK_MAX)
                bodies += [await asyncio.wait_for(arrived.get(), _TIMEOUT_S) for _ in range(count)]
        return identities(bodies)


class KafkaState:
    """Through the group's committed offsets and a consumer without a group."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    async def waiting(self) -> int:
        consumer = self._consumer()
        await consumer.start()
        try:
            beginnings, ends = await self._open_ranges(consumer)
            return sum(ends[partition] - beginnings[partition] for partition in ends)
        finally:
            await consumer.stop()

    async def peek(self) -> set[Identity]:
        consumer = self._consumer()
        await consumer.start()
        try:
            beginnings, ends = await self._open_ranges(consumer)
            left = min(sum(ends[partition] - beginnings[partition] for partition in ends), _PEEK_MAX)
            for partition, offset in beginnings.items():
                consumer.seek(partition, offset)
            bodies: list[bytes] = []
            async with asyncio.timeout(_TIMEOUT_S):
                while len(bodies) < left:
                    polled = await consumer.getmany(timeout_ms=500)
                    bodies += [record.value or b"" for records in polled.values() for record in records]
            return identities(bodies)
        finally:
            await consumer.stop()

    def _consumer(self) -> AIOKafkaConsumer:
        topics = [topic for place in _PLACES for topic in subscribed_topics(place)]
        return AIOKafkaConsumer(
            *topics, bootstrap_servers=self._bootstrap, group_id=None, enable_auto_commit=False
        )  # outside every group it is given all of their partitions

    async def _open_ranges(
        self, consumer: AIOKafkaConsumer
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """From where the group goes on, and where the partitions end."""
        partitions = list(consumer.assignment())
        beginnings = await consumer.beginning_offsets(partitions)
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            committed = await admin.list_consumer_group_offsets(SUBSCRIBER)
        finally:
            await admin.close()
        for partition, offset in committed.items():
            if partition in beginnings and offset.offset >= 0:
                beginnings[partition] = offset.offset
        return beginnings, await consumer.end_offsets(partitions)


def broker_state(broker: BrokerName, runtime: Runtime) -> BrokerState:
    if broker == "rabbit":
        return RabbitState(runtime.server_urls()["rabbit"])
    return KafkaState(runtime.server_urls()["kafka"])


async def dead_letter_identities(settings: Settings) -> set[Identity]:
    """The events among the subscriber's dead letters."""
    async with create_broker(settings, "compare-dead-letters") as broker:
        bodies: list[bytes] = []
        for place in _PLACES:
            bodies += [letter.body for letter in await broker.dead_letters(place, _PEEK_MAX)]
    return identities(bodies)


async def topology(broker: BrokerName, runtime: Runtime) -> dict[str, Any]:
    """What the services declared, as the broker reports it: RabbitMQ's queues, Kafka's topics."""
    if broker == "rabbit":
        return await _queues(runtime.server_urls()["rabbit"], runtime.addresses.management_url)
    return await _topics(runtime.server_urls()["kafka"])


async def _queues(amqp_url: str, management_url: str) -> dict[str, Any]:
    account = urlsplit(amqp_url)
    auth = (account.username or "", account.password or "")
    async with httpx.AsyncClient(auth=auth, timeout=_TIMEOUT_S, trust_env=False) as client:
        answer = await client.get(f"{management_url}/api/queues/%2F")
    answer.raise_for_status()
    return {
        row["name"]: {"durable": row["durable"], **row["arguments"]}
        for row in answer.json()
        if row["name"].split(".")[0] == SUBSCRIBER
    }


async def _topics(bootstrap: str) -> dict[str, Any]:
    names = [destination_name("kafka", channel) for channel in _CHANNELS]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        partitions = {row["topic"]: len(row["partitions"]) for row in await admin.describe_topics(names)}
        described = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        )
    finally:
        await admin.close()
    found: dict[str, Any] = {}
    for response in described:
        for _, _, _, name, rows in response.resources:
            # Source 1: set on the topic itself; everything else is the server's setting or default.
            found[name] = {"partitions": partitions[name], **{row[0]: row[1] for row in rows if row[3] == 1}}
    return found
