"""Publishes a round's backlog: the same bytes, put where each contender will read them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer
from redis import Redis

from bench.contenders import celery_app, celery_transfers
from bench.events import OrderPlaced, WireEvent
from bench.ledger import Accepted, hold_key
from experiment import broker_state
from experiment.clock import until
from shared.broker import Message, Subscription, create_broker
from shared.broker.kafka import connection_options, subscribed_topics
from shared.errors import UnavailableError
from shared.settings import Settings

_PART = 2_000
_SETTLED_TIMEOUT_S = 10.0
_JOINED_TIMEOUT_S = 90.0
_POLL_S = 0.2

Count = Callable[[], Awaitable[int]]

Advance = Callable[[int], None]
"""Told how many more events have been published."""


def subscription(channel: str, subscriber: str, event_type: str = OrderPlaced.event_type) -> Subscription:
    """What a contender consumes: its own queue or group on the channel."""
    return Subscription(channel=channel, subscriber=subscriber, types=frozenset({event_type}))


async def declare(settings: Settings, subscription: Subscription) -> None:
    """Have what is published for it kept, though nobody consumes it."""
    async with create_broker(settings, "bench-declare") as broker:
        await broker.declare([subscription.channel], [subscription])


@asynccontextmanager
async def arrivals(settings: Settings, subscription: Subscription) -> AsyncIterator[Count]:
    """Declare it, and count what the broker gets for it from then on, in a question that takes some milliseconds;
    nobody consumes."""
    await declare(settings, subscription)
    counting = _offsets if settings.broker == "kafka" else _in_queue
    async with counting(settings, subscription) as count:
        before = await count()

        async def arrived() -> int:
            return await count() - before

        yield arrived


@asynccontextmanager
async def _in_queue(settings: Settings, subscription: Subscription) -> AsyncIterator[Count]:
    """Counts what waits in its queue."""
    async with create_broker(settings, "bench-look") as broker:

        async def waiting() -> int:
            [state] = await broker.queue_states([subscription])
            return state.messages

        yield waiting


@asynccontextmanager
async def _offsets(settings: Settings, subscription: Subscription) -> AsyncIterator[Count]:
    """Counts all that was ever published to its topic."""
    [topic, *_] = subscribed_topics(subscription, settings.broker_prefix)
    consumer = AIOKafkaConsumer(topic, **connection_options(settings), group_id=None, enable_auto_commit=False)
    await consumer.start()
    try:

        async def published() -> int:
            return sum((await consumer.end_offsets(list(consumer.assignment()))).values())

        yield published
    finally:
        await consumer.stop()


async def fill(
    settings: Settings, subscription: Subscription, events: Sequence[WireEvent], advance: Advance
) -> None:
    """Publish the events, all of the subscription's one type, to its queue or group.

    Raises `UnavailableError` when the broker does not confirm every one.
    """
    channel, [event_type] = subscription.channel, subscription.types
    messages = [Message(channel, event_type, event.key, event.body) for event in events]
    async with create_broker(settings, "bench-backlog") as broker:
        await broker.declare([channel], [subscription])
        for start in range(0, len(messages), _PART):
            part = messages[start : start + _PART]
            failures = await broker.publish(part)
            if failures:
                raise UnavailableError(f"{len(failures)} events not confirmed, the first: {failures[0].error}")
            advance(len(part))


async def until_consumed(settings: Settings, subscription: Subscription, consumers: int) -> bool:
    """Wait until so many processes consume, bounded; False when they do not come."""
    return await until(lambda: are_consuming(settings, subscription, consumers), _JOINED_TIMEOUT_S, _POLL_S)


async def are_consuming(settings: Settings, subscription: Subscription, consumers: int) -> bool:
    """Whether so many processes consume, as far as the broker knows. RabbitMQ counts the one that is active: the
    others stand by."""
    counted = 1 if settings.broker == "rabbit" else consumers
    async with create_broker(settings, "bench-look") as broker:
        return [state.consumers for state in await broker.queue_states([subscription])] == [counted]


async def unsettled(settings: Settings, subscription: Subscription) -> int:
    """How many messages a contender that stopped would get again; waits a few seconds for 0."""
    left = 0

    async def settled() -> bool:
        nonlocal left
        left = await broker_state.waiting(settings, [subscription])
        return not left

    await until(settled, _SETTLED_TIMEOUT_S, _POLL_S)
    return left


def fill_celery(settings: Settings, queue: str, events: Sequence[WireEvent], advance: Advance) -> None:
    """Send one task per event, its argument the event's bytes as text. Blocks; returns when all are confirmed."""
    app = celery_app.create_app(settings.rabbit_url, queue)
    with app.producer_pool.acquire(block=True) as producer:
        for event in events:
            app.send_task(celery_app.TASK, args=[event.body.decode()], queue=queue, producer=producer)
            advance(1)
    app.close()


def fill_tasks(settings: Settings, queue: str, accepted: Accepted, advance: Advance) -> None:
    """Send a task for each transfer, and have Redis hold what they hold. Blocks until all are there."""
    with Redis.from_url(settings.redis_url) as redis:
        redis.mset({hold_key(sender_id): amount for sender_id, amount in accepted.held.items()})
    app = celery_transfers.create_app(settings.redis_url, queue)
    with app.producer_pool.acquire(block=True) as producer:
        for event in accepted.events:
            app.send_task(celery_transfers.TASK, args=[event.id], queue=queue, producer=producer)
            advance(1)
    app.close()
