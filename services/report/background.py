"""What the report service does besides: fire its schedules, and keep what it stores bounded."""

from __future__ import annotations

from services.report import store
from services.report.handlers import schedules
from shared.process import Parts, keep_pruning


async def keep_firing(parts: Parts) -> None:
    """Fire the schedules, as long as the process runs."""
    await schedules(parts.settings).keep_firing(parts)


async def keep_bounded(parts: Parts) -> None:
    """Delete reports behind their jobs, and PDFs of which there are too many, as long as the process runs."""
    await keep_pruning(parts.database, store.prune, 0.0)
