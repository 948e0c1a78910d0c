"""From a unit of work over the outbox to the broker."""
