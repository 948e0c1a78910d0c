"""What stamps inside the processes: light, since a consumer's start is measured."""

__all__ = ["STAMPED", "Kind", "event_digest", "read_from", "stamps_environment"]

from experiment.stamping.stamp_file import STAMPED, Kind, event_digest, read_from, stamps_environment
