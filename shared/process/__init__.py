"""A service's process: what it is built of and what it runs."""

from shared.process.parts import Parts, until_available
from shared.process.server import run
from shared.process.service import Service

__all__ = [
    "Parts",
    "Service",
    "run",
    "until_available",
]
