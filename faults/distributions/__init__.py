"""Distributions beside the orders: what is given and received, how it is checked, and the faults of receiving."""

__all__ = ["faults", "side"]
