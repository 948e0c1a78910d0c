"""What every HTTP API has: problem documents, checked bodies, pages, idempotency keys."""

__all__ = [
    "application",
    "backpressure",
    "event_stream",
    "idempotency",
    "openapi",
    "pages",
    "problems",
    "readable",
    "timestamps",
]
