"""The jobs service: takes jobs, runs their steps, tells of them. Run it with `python -m services.jobs.app`."""

from __future__ import annotations

from services.jobs import handlers
from services.jobs.events import JobStepReady
from shared.process import Service, run

SERVICE = Service(
    name="jobs",
    publishes=(JobStepReady,),
    subscribers=handlers.SUBSCRIBERS,
    background_tasks=(handlers.JOBS.keep_due, handlers.keep_firing),
    workers=(handlers.JOBS.work,),
    jobs=handlers.JOBS,
    application="services.jobs.http:create_app",
)

if __name__ == "__main__":
    raise SystemExit(run(SERVICE))
