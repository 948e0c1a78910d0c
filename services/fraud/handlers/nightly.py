"""The night's batch: what the day before has without a verdict is judged, in checkpoints."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from services.fraud import domain, store
from services.fraud.handlers.judging import judge, policy_of
from shared.jobs import Chunk, JobContext, Signature, job

CHUNK_MAX: Final = 200
_FIRST: Final = UUID(int=0)


@job(name="evaluate-day", leased=True, queue="batch")
async def evaluate_day(day: date, ctx: JobContext) -> int:
    """Judge the orders of a day that have no verdict; how many those were.

    An order that is judged by its event meanwhile fails the checkpoint, and the next attempt passes it over.
    """
    policy = policy_of(ctx.parts.settings)
    begin, end = domain.span_of(day)
    count = 0

    async def read(cursor: Any) -> Chunk | None:
        nonlocal count
        after = (begin, _FIRST) if cursor is None else (datetime.fromisoformat(cursor["at"]), UUID(cursor["id"]))
        count = 0 if cursor is None else cursor["count"]
        async with ctx.reading() as connection:
            found = await store.without_verdict(connection, after, end, CHUNK_MAX, policy)
        if not found:
            return None
        last = found[-1]
        at = last.facts.placed_at.isoformat()
        return Chunk(found, {"at": at, "id": str(last.order_id), "count": count + len(found)})

    async for subjects in ctx.iterate(read):
        for subject in subjects:
            judge(ctx, subject, policy, "batch")
        ctx.report(count + len(subjects), count + len(subjects), f"orders of {day}")
    return count


def day_before(due: datetime) -> Signature:
    """The day before the one on which it was due, however late it runs."""
    return evaluate_day.s(due.date() - timedelta(days=1))
