"""The adapter to RabbitMQ."""

from shared.broker.rabbit.adapter import RabbitAdapter, client_options

__all__ = [
    "RabbitAdapter",
    "client_options",
]
