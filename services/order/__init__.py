"""The order service."""

__all__ = [
    "domain",
    "events",
    "store",
]
