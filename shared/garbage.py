"""Python's garbage collector, told to rest: nearly everything here is freed by reference counting.

Imports nothing, so that it can come before whatever is dear to import.
"""

from __future__ import annotations

import gc

_ALLOCATIONS = 50_000


def collect_seldom() -> None:
    """Look for cycles once in many thousand allocations, not in 700.

    Importing a service makes hundreds of thousands of objects that stay: looking for cycles among them, again and
    again as they become more, took 14 % of the import's CPU time.
    """
    gc.enable()
    gc.set_threshold(_ALLOCATIONS)


def collect_nothing() -> None:
    """Look for no cycles until `collect_seldom` or `rest_garbage_collector` is called.

    For what does nothing but import until then: even once in many thousand allocations took an eighth of that.
    """
    gc.disable()


def rest_garbage_collector() -> None:
    """Leave what has been imported out of every collection, and collect seldom.

    A batch makes tens of thousands of objects, nearly all freed by reference counting: looking for cycles among
    them, and among all that was imported, took a fifth of a consumer's CPU time.
    """
    gc.collect()
    gc.freeze()
    collect_seldom()
