"""The user service."""

__all__: list[str] = []
