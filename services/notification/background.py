"""What the notification service does besides: move what has grown old to the archive, where there is one."""

from __future__ import annotations

from services.notification.handlers import JOBS, schedules
from shared.process import Parts


async def keep_firing(parts: Parts) -> None:
    """Fire the schedule, as long as the process runs; without an object storage there is none, and this ends."""
    await schedules(parts.settings).keep_firing(parts)


async def keep_jobs(parts: Parts) -> None:
    """Look after the archive's jobs, as long as the process runs; not where there can be none."""
    if parts.settings.object_store_url is not None:
        await JOBS.keep_due(parts)
