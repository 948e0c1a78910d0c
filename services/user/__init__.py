"""The user service."""

__all__ = [
    "domain",
    "events",
    "store",
]
