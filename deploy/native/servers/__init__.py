"""The servers: PostgreSQL, Redis, RabbitMQ, Kafka, mail, object storage."""

__all__ = [
    "mail",
    "objects",
    "postgres",
    "rabbit",
    "redis",
    "table",
]
