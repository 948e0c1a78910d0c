"""What every Tandem service is built from: the broker seam, the consumer pipeline and the outbox relay."""
