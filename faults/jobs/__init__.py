"""Jobs while the system is broken: a service with jobs of its own, its load, and what becomes of it."""

__all__ = ["faults", "side"]
