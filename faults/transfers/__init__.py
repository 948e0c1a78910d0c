"""Transfers of money beside the orders: what is asked for, how it is checked, and the wallet's own faults."""

__all__ = ["faults", "side"]
