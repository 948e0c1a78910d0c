"""The adapter to Kafka."""

from shared.broker.kafka.adapter import KafkaAdapter
from shared.broker.kafka.producer import PRODUCER_OPTIONS
from shared.broker.kafka.subscriptions import consumer_options
from shared.broker.kafka.topics import subscribed_topics

__all__ = [
    "PRODUCER_OPTIONS",
    "KafkaAdapter",
    "consumer_options",
    "subscribed_topics",
]
