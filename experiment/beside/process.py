"""Runs what is beside the orders: `python -m experiment.beside.process requests|jobs|fan-out [subscribers]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from shared.process import Service, run


def service_of(arguments: Sequence[str]) -> Service:
    """What is asked for by name."""
    name, *rest = arguments
    if name == "requests":
        from experiment.beside.answering import SERVICE as ANSWERING

        return ANSWERING
    if name == "jobs":
        from experiment.beside.running import SERVICE as RUNNING

        return RUNNING
    from experiment.beside.subscribing import subscribing

    return subscribing(int(rest[0]))


if __name__ == "__main__":
    raise SystemExit(run(service_of(sys.argv[1:])))
