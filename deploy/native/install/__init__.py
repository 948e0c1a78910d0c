"""What must be on the machine before servers can run natively."""

__all__ = [
    "install",
    "kafka",
    "system",
]
