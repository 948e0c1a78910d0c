"""Verdicts on the orders while the system is broken: the fraud service, its nightly batch and its threat list."""

__all__ = ["faults", "side"]
