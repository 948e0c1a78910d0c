"""The wallet of one side, for whatever runs in it beside the orders: its accounts, its clients, its audit."""

__all__ = ["accounts", "audit", "client", "members"]
