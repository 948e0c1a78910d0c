"""The adapter to Kafka."""

from shared.broker.kafka.adapter import KafkaAdapter
from shared.broker.kafka.producer import producer_options
from shared.broker.kafka.subscriptions import consumer_options
from shared.broker.kafka.topics import subscribed_topics

__all__ = [
    "KafkaAdapter",
    "consumer_options",
    "producer_options",
    "subscribed_topics",
]
