"""The report service."""

__all__: list[str] = []
