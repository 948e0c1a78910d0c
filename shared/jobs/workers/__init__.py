"""Workers, as people see them: which there are, what they are at, and that one is to take no more."""

__all__ = ["routes"]
