"""The HTTP by which the load submits graphs, by their numbers."""

from __future__ import annotations

from typing import Any

from experiment.beside.submitting import graphs_app
from faults.jobs.played import graph
from shared.process import Parts


def create_app(parts: Parts) -> Any:
    """The application, for a process with the role `api`."""
    return graphs_app(parts, lambda asked: graph(asked.number))
