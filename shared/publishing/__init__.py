"""Publishing: a unit of work writes events to the outbox, the relay moves them to the broker."""
