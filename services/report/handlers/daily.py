"""The schedules of the report service: the report of the day before, every morning, and the archive."""

from __future__ import annotations

from datetime import datetime, timedelta

from services.report.handlers.steps import ARCHIVE, sales_report
from shared.jobs import Signature
from shared.jobs.schedules import Cron, Schedule, Schedules
from shared.settings import Settings


def daily_report(due: datetime) -> Signature:
    """The report of the day before the one on which it was due, however late it runs."""
    day = due.date() - timedelta(days=1)
    return sales_report(day, day, None)


def schedules(settings: Settings) -> Schedules:
    """All schedules of this service: each process has its own."""
    daily = Schedule("daily-sales-report", Cron("0 9 * * *"), daily_report)
    return Schedules(daily, *ARCHIVE.schedules(settings))
