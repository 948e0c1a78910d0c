"""The AsyncAPI document of operations on Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from faststream.kafka import KafkaBroker

from shared.broker.asyncapi import add_handler, asyncapi_document
from shared.broker.base import Operation, destination_name


def document(title: str, version: str, operations: Sequence[Operation], prefix: str) -> dict[str, Any]:
    """As `Broker.asyncapi`."""
    broker = KafkaBroker("kafka", specification_url="kafka://kafka", logger=None)
    for operation in operations:
        topic = destination_name("kafka", operation.channel, prefix)
        if operation.subscriber is None:
            broker.publisher(topic, title=operation.event_type, schema=operation.model)
        else:
            group = f"{prefix}{operation.subscriber}"
            subscriber = broker.subscriber(topic, group_id=group, title=operation.event_type)
            add_handler(subscriber, operation)
    return asyncapi_document(broker, title, version)
