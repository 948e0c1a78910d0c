"""Jobs of this engine, in a service's own process: `python -m bench.contenders.tandem_jobs`."""

from __future__ import annotations

import sys

from bench.contenders.tandem_steps import JOBS, SUBSCRIBER, BenchStepReady
from shared.process import Service, run

SERVICE = Service(
    name=SUBSCRIBER,
    publishes=(BenchStepReady,),
    subscribers=(JOBS.subscriber(SUBSCRIBER),),
    background_tasks=(JOBS.keep_due,),
    workers=(JOBS.work,),
    jobs=JOBS,
)

if __name__ == "__main__":
    sys.exit(run(SERVICE))
