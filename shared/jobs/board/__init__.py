"""The board: what people see of jobs over HTTP, as lists, as trees, and while they run."""

__all__ = ["routes", "views"]
