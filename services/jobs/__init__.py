"""The jobs service."""

__all__: list[str] = []
