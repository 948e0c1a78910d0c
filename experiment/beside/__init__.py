"""What runs beside the orders in a scenario: requests and replies, graphs of jobs, more subscribers of the orders.

Each has a process of its own, made of the parts of a service, only while the scenario is played; what it did is
checked one by one.
"""

from experiment.beside.company import Company, Told
from experiment.beside.everywhere import every_place
from experiment.beside.fan_out import more_subscribers
from experiment.beside.jobs import submitted_jobs
from experiment.beside.requests import asked_requests

__all__ = [
    "Company",
    "Told",
    "asked_requests",
    "every_place",
    "more_subscribers",
    "submitted_jobs",
    "submitting",
]
