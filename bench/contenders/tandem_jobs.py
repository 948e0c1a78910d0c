"""Jobs of this engine, in a service's own process: `python -m bench.contenders.tandem_jobs`."""

from __future__ import annotations

import sys

from shared.jobs import Jobs, Signature, StepReady, job, map_over
from shared.process import Service, run


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


def chord(size: int) -> Signature:
    """So many sums, and the sum of them."""
    return map_over(add.s(1), range(size), then=total.s())


JOBS = Jobs(BenchStepReady, add, total)
SERVICE = Service(
    name="benchjobs",
    publishes=(BenchStepReady,),
    subscribers=(JOBS.subscriber("benchjobs"),),
    background_tasks=(JOBS.keep_due,),
    jobs=JOBS,
)

if __name__ == "__main__":
    sys.exit(run(SERVICE))
