"""The wallet of one side, for whatever runs in it beside the orders: its audit."""

__all__ = ["audit"]
