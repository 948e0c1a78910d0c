"""Looks into a broker from outside: how much waits for a subscriber, which events those are, what was declared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import httpx
from aio_pika.abc import AbstractIncomingMessage
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.topology import SUBSCRIPTIONS
from experiment.effects import SUBSCRIBER, identities
from experiment.ledger import Identity
from shared.broker import Subscription, create_broker, destination_name
from shared.broker.kafka import connection_options, group_name, subscribed_topics
from shared.broker.rabbit import dead_letter_queue_name, queue_name, urls_of
from shared.errors import TandemError, UnavailableError
from shared.settings import Settings

_ALL_PLACES = tuple(
    Subscription(channel=channel, subscriber=subscriber, types=frozenset())
    for subscriber, channel in SUBSCRIPTIONS
    if subscriber not in {"fraud", "jobs", "report", "wallet"}  # take no part, and have no place in the broker
)
_PLACES = tuple(place for place in _ALL_PLACES if place.subscriber == SUBSCRIBER)
_CHANNELS = tuple(place.channel for place in _PLACES)
_NAME = "experiment"
_TIMEOUT_S = 15.0
_PEEK_MAX = 50_000


async def waiting(settings: Settings, subscriptions: Sequence[Subscription] = _PLACES) -> int:
    """How many events wait for these subscriptions, whose consumers are stopped: for `notification` if not said.

    Raises `UnavailableError` when the broker does not answer, or has no place for one of them.
    """
    return sum(await _waiting_by_place(settings, subscriptions))


async def peek(settings: Settings) -> set[Identity]:
    """Which events wait for `notification` (at most 50,000 of a channel); everything stays where it is."""
    bodies: list[bytes] = []
    for place, count in zip(_PLACES, await _waiting_by_place(settings, _PLACES), strict=True):
        look = _first_in_queue if settings.broker == "rabbit" else _first_in_topics
        bodies += await look(settings, place, min(count, _PEEK_MAX))
    return identities(bodies)


async def dead_letter_identities(settings: Settings) -> set[Identity]:
    """The events among the dead letters of all subscribers, which stay where they are."""
    async with create_broker(settings, _NAME) as broker:
        bodies: list[bytes] = []
        for place in _ALL_PLACES:
            bodies += [letter.body for letter in await broker.dead_letters(place, _PEEK_MAX)]
    return identities(bodies)


async def _waiting_by_place(settings: Settings, subscriptions: Sequence[Subscription]) -> list[int]:
    async with create_broker(settings, _NAME) as broker:
        counts = {state.queue: state.messages for state in await broker.queue_states(subscriptions)}
    missing = [subscription.queue for subscription in subscriptions if subscription.queue not in counts]
    if missing:
        raise UnavailableError(f"the broker has no {', '.join(missing)}")
    return [counts[subscription.queue] for subscription in subscriptions]


async def _first_in_queue(settings: Settings, place: Subscription, count: int) -> list[bytes]:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(message: AbstractIncomingMessage) -> None:
        await arrived.put(message.body)

    [url, *_] = urls_of(settings)  # of a cluster any node leads to the queue
    async with await aio_pika.connect(url, timeout=_TIMEOUT_S) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(queue_name(place, settings.broker_prefix))
        # basic.get is refused on a queue with a single active consumer; closing puts everything back.
        await queue.consume(take)
        return [await asyncio.wait_for(arrived.get(), _TIMEOUT_S) for _ in range(count)]


async def _first_in_topics(settings: Settings, place: Subscription, count: int) -> list[bytes]:
    bodies: list[bytes] = []
    consumer = AIOKafkaConsumer(
        *subscribed_topics(place, settings.broker_prefix),
        **connection_options(settings),
        group_id=None,  # outside every group it is given all of their partitions
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        for partition, offset in (await _committed(settings, group_name(place, settings.broker_prefix))).items():
            if partition in consumer.assignment():
                consumer.seek(partition, offset)
        async with asyncio.timeout(_TIMEOUT_S):
            while len(bodies) < count:
                polled = await consumer.getmany(timeout_ms=500, max_records=count - len(bodies))
                bodies += [record.value or b"" for records in polled.values() for record in records]
    finally:
        await consumer.stop()
    return bodies


async def begin_at_the_end(settings: Settings, subscriptions: Sequence[Subscription]) -> None:
    """Have subscribers that do not run begin with what comes from now on: on Kafka, where a new one would begin
    with all that is kept. On RabbitMQ a new queue is empty."""
    if settings.broker == "rabbit":
        return
    prefix, options = settings.broker_prefix, connection_options(settings)
    topics = sorted({destination_name("kafka", each.channel, prefix) for each in subscriptions})
    async with _administration(settings) as admin:
        described = await admin.describe_topics(topics)
    everything = [
        TopicPartition(row["topic"], partition["partition"])
        for row in described
        for partition in row["partitions"]
    ]
    for each in subscriptions:
        topic = destination_name("kafka", each.channel, prefix)
        own = [partition for partition in everything if partition.topic == topic]
        consumer = AIOKafkaConsumer(**options, group_id=group_name(each, prefix), enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign(own)
            await consumer.commit(await consumer.end_offsets(own))
        finally:
            await consumer.stop()


async def remove_places(settings: Settings, subscriptions: Sequence[Subscription]) -> None:
    """Delete the places of subscribers that are gone: on RabbitMQ, where every event would be put there as well.
    A group of Kafka's that nobody is in costs nothing."""
    if settings.broker != "rabbit":
        return
    prefix = settings.broker_prefix
    async with await aio_pika.connect(urls_of(settings)[0], timeout=_TIMEOUT_S) as connection:
        channel = await connection.channel()
        for each in subscriptions:
            await channel.queue_delete(queue_name(each, prefix), timeout=_TIMEOUT_S)
            await channel.queue_delete(dead_letter_queue_name(each, prefix), timeout=_TIMEOUT_S)


async def _committed(settings: Settings, group: str) -> dict[TopicPartition, int]:
    """From where the group goes on, where it has settled anything."""
    async with _administration(settings) as admin:
        committed = await admin.list_consumer_group_offsets(group)
    return {partition: at.offset for partition, at in committed.items() if at.offset >= 0}


async def answers(settings: Settings) -> bool:
    """Whether a client can connect to the broker, and is answered."""
    try:
        async with create_broker(settings, _NAME) as broker:
            await broker.ping()
    except TandemError:
        return False
    return True


async def topology(settings: Settings, management_url: str | None) -> dict[str, Any] | str:
    """What the services declared, as the broker reports it: RabbitMQ's queues, by its management API, and Kafka's
    topics; or why that is not known."""
    if settings.broker == "kafka":
        return await _topics(settings)
    return await _queues(settings, management_url) if management_url else "not asked: AMQP does not tell"


async def _queues(settings: Settings, management_url: str) -> dict[str, Any]:
    account = urlsplit(settings.rabbit_url or "")
    auth = (account.username or "", account.password or "")
    async with httpx.AsyncClient(auth=auth, timeout=_TIMEOUT_S, trust_env=False) as client:
        answer = await client.get(f"{management_url}/api/queues/%2F")
    answer.raise_for_status()
    return {
        row["name"]: {"durable": row["durable"], **row["arguments"]}
        for row in answer.json()
        if row["name"].split(".")[0] == SUBSCRIBER
    }


async def _topics(settings: Settings) -> dict[str, Any]:
    prefix = settings.broker_prefix
    names = [destination_name("kafka", channel, prefix) for channel in _CHANNELS]
    async with _administration(settings) as admin:
        partitions = {row["topic"]: len(row["partitions"]) for row in await admin.describe_topics(names)}
        described = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        )
    found: dict[str, Any] = {}
    for response in described:
        for _, _, _, name, rows in response.resources:
            # Source 1: set on the topic itself; everything else is the server's setting or default.
            own = {row[0]: row[1] for row in rows if row[3] == 1}
            found[name.removeprefix(prefix)] = {"partitions": partitions[name], **own}
    return found


@asynccontextmanager
async def _administration(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**connection_options(settings))
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()
