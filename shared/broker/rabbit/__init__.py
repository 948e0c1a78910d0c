"""The adapter to RabbitMQ."""

from shared.broker.rabbit.adapter import RabbitAdapter, client_options
from shared.broker.rabbit.nodes import urls_of
from shared.broker.rabbit.topology import dead_letter_queue_name, names_for, queue_name

__all__ = [
    "RabbitAdapter",
    "client_options",
    "dead_letter_queue_name",
    "names_for",
    "queue_name",
    "urls_of",
]
