"""A whole service in one screen."""

__all__: list[str] = []
