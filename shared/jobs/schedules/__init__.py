"""Schedules: when jobs are submitted by themselves, by any number of schedulers, none twice and none forgotten."""

from shared.jobs.schedules.catch_up import NONE
from shared.jobs.schedules.cron import Cron, Every
from shared.jobs.schedules.schedule import Schedule
from shared.jobs.schedules.schedules import Schedules

__all__ = ["NONE", "Cron", "Every", "Schedule", "Schedules", "routes"]
