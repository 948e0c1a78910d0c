"""A service's process: what it is built of and what it runs."""

from shared.process.parts import Parts, build_parts, until_available
from shared.process.server import run
from shared.process.service import Service
from shared.process.upkeep import keep_pruning

__all__ = [
    "Parts",
    "Service",
    "build_parts",
    "keep_pruning",
    "run",
    "until_available",
]
