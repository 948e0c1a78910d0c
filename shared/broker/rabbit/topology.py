"""What a channel and a subscription are on RabbitMQ: exchanges, quorum queues, and every argument they have.

`prefix` is the settings' `broker_prefix`, with which every name begins. Routing keys are without it: they mean
something within an exchange only.
"""

from __future__ import annotations

from collections.abc import Sequence

from faststream.rabbit import ExchangeType, QueueType, RabbitExchange, RabbitQueue

from shared.broker.asking import TIMEOUT_S_MAX
from shared.broker.base import Subscription, destination_name
from shared.settings import Settings

BROKER_DELIVERY_LIMIT = 50
"""Quorum `x-delivery-limit`: the net under our own attempt counter, so well above it."""


def event_exchange(channel: str, prefix: str) -> RabbitExchange:
    """`order.events`: routes by event type."""
    return RabbitExchange(destination_name("rabbit", channel, prefix), type=ExchangeType.TOPIC, durable=True)


def dead_letter_exchange(channel: str, prefix: str) -> RabbitExchange:
    """`order.dlx`: routes by the name of the queue that a dead letter comes from."""
    return RabbitExchange(f"{prefix}{channel}.dlx", type=ExchangeType.DIRECT, durable=True)


def queue_name(subscription: Subscription, prefix: str) -> str:
    """`notification.order`."""
    return f"{prefix}{subscription.queue}"


def subscriber_queue(subscription: Subscription, settings: Settings) -> RabbitQueue:
    """`notification.order`: what waits for the subscriber. Requests whose time is over are dropped: no dead-letter
    exchange."""
    if subscription.answers:
        return RabbitQueue(
            queue_name(subscription, settings.broker_prefix),
            queue_type=QueueType.QUORUM,
            durable=True,
            arguments={
                "x-message-ttl": int(TIMEOUT_S_MAX * 1_000),
                "x-delivery-limit": BROKER_DELIVERY_LIMIT,
                "x-single-active-consumer": subscription.ordered,
            },
        )
    return RabbitQueue(
        queue_name(subscription, settings.broker_prefix),
        queue_type=QueueType.QUORUM,
        durable=True,
        arguments={
            "x-dead-letter-exchange": dead_letter_exchange(subscription.channel, settings.broker_prefix).name,
            "x-dead-letter-routing-key": subscription.queue,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",  # at-least-once dead-lettering asks for it
            "x-message-ttl": int(settings.message_ttl_s * 1_000),
            "x-delivery-limit": BROKER_DELIVERY_LIMIT,
            "x-single-active-consumer": subscription.ordered,
        },
    )


def dead_letter_queue(subscription: Subscription, settings: Settings) -> RabbitQueue:
    """`notification.order.dlq`: what the subscriber could not take."""
    return RabbitQueue(
        dead_letter_queue_name(subscription, settings.broker_prefix),
        queue_type=QueueType.QUORUM,
        durable=True,
        arguments={
            "x-message-ttl": int(settings.dead_letter_ttl_s * 1_000),
            "x-delivery-limit": -1,  # looking at a letter must not use it up
        },
    )


def dead_letter_queue_name(subscription: Subscription, prefix: str) -> str:
    """The name alone, to look into the queue."""
    return f"{queue_name(subscription, prefix)}.dlq"


def names_for(
    channels: Sequence[str], subscriptions: Sequence[Subscription], prefix: str
) -> tuple[list[str], list[str]]:
    """Every exchange and queue that these channels and subscriptions may have: what there is to delete."""
    exchanges = [
        exchange.name
        for channel in channels
        for exchange in (event_exchange(channel, prefix), dead_letter_exchange(channel, prefix))
    ]
    queues = [
        name
        for subscription in subscriptions
        for name in (queue_name(subscription, prefix), dead_letter_queue_name(subscription, prefix))
    ]
    return exchanges, queues
