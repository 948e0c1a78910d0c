"""The jobs of the fraud service, and when they run."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from services.fraud.events import FraudStepReady
from services.fraud.handlers.nightly import day_before, evaluate_day
from services.fraud.handlers.threats import fetch_threats, refreshed_list, tell_of_threats
from shared.jobs import Jobs, Signature
from shared.jobs.archive import HISTORY, Archive
from shared.jobs.schedules import Cron, Schedule, Schedules
from shared.settings import Settings

NIGHTS_MADE_UP: Final = 30

ARCHIVE: Final = Archive("fraud", HISTORY)
JOBS: Final = Jobs(FraudStepReady, evaluate_day, fetch_threats, tell_of_threats, archive=ARCHIVE)


def schedules(settings: Settings) -> Schedules:
    """All schedules of this service: each process has its own. Without a list's URL none is fetched."""
    nightly = Schedule("fraud-batch", Cron("0 0 * * *"), day_before, made_up=NIGHTS_MADE_UP)
    archive = ARCHIVE.schedules(settings)
    if settings.fraud_threats_url is None:
        return Schedules(nightly, *archive)
    return Schedules(nightly, Schedule("threat-list", Cron("30 * * * *"), _refreshed, overlap="skip"), *archive)


def _refreshed(_due: datetime) -> Signature:
    return refreshed_list()
