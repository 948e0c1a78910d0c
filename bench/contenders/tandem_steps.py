"""Handlers of this engine, and the jobs made of them; in a module of its own, where child processes find them."""

from __future__ import annotations

import time

from shared.jobs import Jobs, Signature, StepReady, job, map_over


class BenchStepReady(StepReady):
    """On a channel of its own."""

    channel = "benchjob"
    event_type = "benchjob.step_ready"


@job
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@job
def total(numbers: list[int]) -> int:
    """The sum of all."""
    return sum(numbers)


@job(leased=True)
def add_in_child(a: int, b: int) -> int:
    """The sum, in a child of a worker."""
    return a + b


@job
def started() -> float:
    """When it began, by the clock that all processes of a host share: seconds of `time.monotonic`."""
    return time.monotonic()


@job(leased=True)
async def started_in_worker() -> float:
    """The same in the event loop of a worker."""
    return time.monotonic()


@job(leased=True, queue="unserved")
async def waits(number: int) -> int:
    """Waits, since no worker serves its queue."""
    return number


def chord(size: int) -> Signature:
    """So many sums, and the sum of them."""
    return map_over(add.s(1), range(size), then=total.s())


SUBSCRIBER = "benchjobs"
_SERVED = (add, total, add_in_child, started, started_in_worker)
JOBS = Jobs(BenchStepReady, *_SERVED)
SUBMITTED = Jobs(BenchStepReady, *_SERVED, waits)
"""With what is submitted and never run."""
