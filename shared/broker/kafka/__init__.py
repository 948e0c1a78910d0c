"""The adapter to Kafka."""
