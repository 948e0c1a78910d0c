"""The dead-letter service."""

__all__: list[str] = []
