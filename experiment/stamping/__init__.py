"""What stamps inside the processes: light, since a consumer's start is measured."""

__all__ = [
    "STAMPED",
    "WIRE",
    "Kind",
    "Planted",
    "event_digest",
    "planted",
    "process",
    "read_from",
    "stamps_environment",
]

from experiment.stamping.planted import WIRE, Planted, planted
from experiment.stamping.stamp_file import STAMPED, Kind, event_digest, read_from, stamps_environment
