"""The servers: PostgreSQL, Redis, RabbitMQ, Kafka, mail."""

__all__ = [
    "mail",
    "postgres",
    "rabbit",
    "redis",
    "table",
]
