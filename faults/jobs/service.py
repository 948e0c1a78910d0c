"""A service with jobs, in place of the jobs service while faults are played: `python -m faults.jobs.service`.

It is made of the same parts, and has other handlers: those of the jobs service leave nothing to be counted.
"""

from __future__ import annotations

from faults.jobs.played import JOBS, SCHEDULES, PlayedStepReady
from shared.process import Service, run

SERVICE = Service(
    name="jobs",
    publishes=(PlayedStepReady,),
    subscribers=(JOBS.subscriber("jobs"),),
    background_tasks=(JOBS.keep_due, SCHEDULES.keep_firing),
    workers=(JOBS.work,),
    jobs=JOBS,
    application="faults.jobs.http:create_app",
)

if __name__ == "__main__":
    raise SystemExit(run(SERVICE))
