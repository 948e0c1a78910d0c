"""The fraud service."""

__all__: list[str] = []
