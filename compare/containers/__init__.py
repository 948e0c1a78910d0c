"""The comparison with Docker: the servers in containers, and the harness with services and load in one more."""

from compare.containers.outside import engine_for, run_in_containers

__all__ = ["engine_for", "run_in_containers"]
