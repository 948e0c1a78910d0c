"""What HTTP APIs have: problem documents, checked bodies, pages, idempotency keys, a guard against other sites."""

__all__ = [
    "application",
    "backpressure",
    "cross_origin",
    "event_stream",
    "idempotency",
    "openapi",
    "pages",
    "problems",
    "readable",
    "timestamps",
]
