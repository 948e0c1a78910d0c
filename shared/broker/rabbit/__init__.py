"""The adapter to RabbitMQ."""
