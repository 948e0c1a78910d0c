"""The AsyncAPI document of operations on RabbitMQ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from faststream.rabbit import QueueType, RabbitBroker, RabbitQueue

from shared.broker.asyncapi import add_handler, asyncapi_document
from shared.broker.base import Operation
from shared.broker.rabbit.topology import event_exchange


def document(title: str, version: str, operations: Sequence[Operation], prefix: str) -> dict[str, Any]:
    """As `Broker.asyncapi`."""
    broker = RabbitBroker("amqp://rabbitmq", specification_url="amqp://rabbitmq", logger=None)
    for operation in operations:
        exchange = event_exchange(operation.channel, prefix)
        if operation.subscriber is None:
            broker.publisher(
                exchange=exchange,
                routing_key=operation.event_type,
                title=operation.event_type,
                schema=operation.model,
                persist=True,
            )
        else:
            queue = RabbitQueue(
                f"{prefix}{operation.subscriber}.{operation.channel}",
                queue_type=QueueType.QUORUM,
                durable=True,
                routing_key=operation.event_type,
            )
            add_handler(broker.subscriber(queue, exchange, title=operation.event_type), operation)
    return asyncapi_document(broker, title, version)
