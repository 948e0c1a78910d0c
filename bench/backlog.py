"""Publishes a round's backlog: the same bytes, put where each contender will read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.contenders import celery_app
from bench.events import OrderPlaced, WireEvent
from shared.broker import Message, Subscription, create_broker
from shared.errors import UnavailableError
from shared.settings import Settings

_PART = 1_000

Advance = Callable[[int], None]
"""Told how many more events have been published."""


def subscription(channel: str, subscriber: str) -> Subscription:
    """What a contender consumes: its own queue or group on the channel."""
    return Subscription(channel=channel, subscriber=subscriber, types=frozenset({OrderPlaced.event_type}))


async def fill(
    settings: Settings, channel: str, subscribers: Sequence[str], events: Sequence[WireEvent], advance: Advance
) -> None:
    """Publish the events once; each subscriber has its own queue, or group, with all of them.

    Raises `UnavailableError` when the broker does not confirm every one.
    """
    subscriptions = [subscription(channel, name) for name in subscribers]
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
