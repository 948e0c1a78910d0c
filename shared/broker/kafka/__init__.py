"""The adapter to Kafka."""

from shared.broker.kafka.access import connection_options
from shared.broker.kafka.adapter import KafkaAdapter
from shared.broker.kafka.fetching import AHEAD_BYTES_MAX, AHEAD_BYTES_MIN
from shared.broker.kafka.producer import producer_options
from shared.broker.kafka.subscriptions import consumer_options
from shared.broker.kafka.topics import group_name, subscribed_topics, sync_options

__all__ = [
    "AHEAD_BYTES_MAX",
    "AHEAD_BYTES_MIN",
    "KafkaAdapter",
    "connection_options",
    "consumer_options",
    "group_name",
    "producer_options",
    "subscribed_topics",
    "sync_options",
]
