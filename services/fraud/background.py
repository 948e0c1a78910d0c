"""What the fraud service does besides: fire its schedules, and forget orders that no rule counts any more."""

from __future__ import annotations

from services.fraud import store
from services.fraud.handlers import schedules
from shared.process import Parts, keep_pruning


async def keep_firing(parts: Parts) -> None:
    """Fire the schedules, as long as the process runs."""
    await schedules(parts.settings).keep_firing(parts)


async def keep_bounded(parts: Parts) -> None:
    """Delete orders that were evaluated long ago, as long as the process runs; their evaluations stay."""
    await keep_pruning(parts.database, store.prune, store.KEPT_S)
