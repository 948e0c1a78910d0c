"""The fraud service: judges every order that is placed. Run it with `python -m services.fraud.app`."""

from __future__ import annotations

from services.fraud import background
from services.fraud.events import PUBLISHED
from services.fraud.handlers import JOBS, SUBSCRIBERS, order_subscriber
from shared.process import Service, run

SERVICE = Service(
    name="fraud",
    publishes=PUBLISHED,
    subscribers=SUBSCRIBERS,
    more_subscribers=lambda parts: (order_subscriber(parts.settings),),
    background_tasks=(JOBS.keep_due, background.keep_firing, background.keep_bounded),
    workers=(JOBS.work,),
    jobs=JOBS,
    application="services.fraud.http:create_app",
)

if __name__ == "__main__":
    raise SystemExit(run(SERVICE))
