"""The servers: PostgreSQL, Redis, RabbitMQ, Kafka, mail."""
