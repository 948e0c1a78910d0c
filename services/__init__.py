"""The services. Importing one imports much that stays, so the garbage collector is told to rest before."""

from shared.garbage import collect_seldom

collect_seldom()

__all__ = [
    "order",
    "user",
]
