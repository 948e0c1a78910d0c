"""The services. Importing one imports much that stays, so the garbage collector is told to rest before."""

import sys

from shared.garbage import collect_nothing, collect_seldom

if sys.argv[:1] == ["-m"]:  # so it is while Python looks for the module that it is to run: a service's process
    collect_nothing()  # `run` rests the collector when all is imported
else:
    collect_seldom()

__all__ = [
    "order",
    "user",
]
