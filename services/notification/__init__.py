"""The notification service."""

__all__: list[str] = []
