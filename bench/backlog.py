"""Backlogs: the same bytes put where each contender will read them, and what it left there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import aio_pika
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient

from bench.contenders import celery_app
from bench.events import OrderPlaced, WireEvent
from shared.broker.base import Message, Subscription
from shared.broker.connect import create_broker
from shared.broker.kafka.topics import subscribed_topics
from shared.errors import UnavailableError
from shared.settings import Settings

_PART = 1_000
_SETTLED_TIMEOUT_S = 10.0

Advance = Callable[[int], None]
"""Told how many more events have been published."""


async def fill(
    settings: Settings, channel: str, subscribers: Sequence[str], events: Sequence[WireEvent], advance: Advance
) -> None:
    """Publish the events once; each subscriber has its own queue, or group, with all of them.

    Raises `UnavailableError` when the broker does not confirm every one.
    """
    subscriptions = [
        Subscription(channel=channel, subscriber=name, types=frozenset({OrderPlaced.event_type}))
        for name in subscribers
    ]
    messages = [Message(channel, OrderPlaced.event_type, event.key, event.body) for event in events]
    async with create_broker(settings, "bench-backlog") as broker:
        await broker.declare([channel], subscriptions)
        for start in range(0, len(messages), _PART):
            part = messages[start : start + _PART]
            failures = await broker.publish(part)
            if failures:
                raise UnavailableError(f"{len(failures)} events not confirmed, the first: {failures[0].error}")
            advance(len(part))


def fill_celery(settings: Settings, queue: str, events: Sequence[WireEvent], advance: Advance) -> None:
    """Send one task per event, its argument the event's bytes as text. Blocks; returns when all are confirmed."""
    app = celery_app.create_app(settings.rabbit_url, queue)
    with app.producer_pool.acquire(block=True) as producer:
        for event in events:
            app.send_task(celery_app.TASK, args=[event.body.decode()], queue=queue, producer=producer)
            advance(1)
    app.close()


async def unsettled(settings: Settings, channel: str, subscriber: str) -> int:
    """How many messages the stopped subscriber would get again; waits a few seconds for 0."""
    look = _in_queue if settings.broker == "rabbit" else _in_topic
    with suppress(TimeoutError):
        async with asyncio.timeout(_SETTLED_TIMEOUT_S):
            while await look(settings, channel, subscriber):  # noqa: ASYNC110 - the broker has no event for it
                await asyncio.sleep(0.2)
            return 0
    return await look(settings, channel, subscriber)


async def _in_queue(settings: Settings, channel_name: str, subscriber: str) -> int:
    async with await aio_pika.connect(settings.rabbit_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(f"{subscriber}.{channel_name}", passive=True)
        return queue.declaration_result.message_count or 0


async def _in_topic(settings: Settings, channel: str, subscriber: str) -> int:
    topics = subscribed_topics(Subscription(channel=channel, subscriber=subscriber, types=frozenset()))
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        committed = await admin.list_consumer_group_offsets(subscriber)
    finally:
        await admin.close()
    async with AIOKafkaConsumer(*topics, bootstrap_servers=settings.kafka_bootstrap, group_id=None) as consumer:
        ends = await consumer.end_offsets(list(consumer.assignment()))
    return sum(end - (committed[place].offset if place in committed else 0) for place, end in ends.items())
