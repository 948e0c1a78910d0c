"""The words of dead letters, and how they are sent."""

__all__ = [
    "headers",
    "sender",
]
