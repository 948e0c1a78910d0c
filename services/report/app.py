"""The report service: reports of sales, as PDF and by mail. Run it with `python -m services.report.app`."""

from __future__ import annotations

from services.report import background
from services.report.handlers import JOBS, SUBSCRIBERS
from shared.process import Service, run

SERVICE = Service(
    name="report",
    subscribers=SUBSCRIBERS,
    background_tasks=(JOBS.keep_due, background.keep_firing, background.keep_bounded),
    workers=(JOBS.work,),
    jobs=JOBS,
    application="services.report.http:create_app",
)

if __name__ == "__main__":
    raise SystemExit(run(SERVICE))
