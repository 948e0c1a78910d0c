"""Advancing: attempts end, and what waited for them goes on; once, and a whole batch with one statement a kind.

1. The fence: each attempt ends only if it is the one that ran; else the transaction rolls back, effects and all.
   An attempt that ran `unread` had none, and is left out instead.
   Where it succeeded and was its job's only step, its job ends in the same statement, and that is all.
2. Steps behind one that failed for good are skipped, so that every graph ends.
3. Children have fewer parents to wait for; those that wait for none are announced.
4. Jobs have fewer open steps; one that has none has ended, with the state that its outputs give it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import TransientError
from shared.jobs import store
from shared.publishing import Cause

Ending = Literal["succeeded", "failed", "scheduled", "cancelled"]


class FenceLostError(TransientError):
    """An attempt has ended already, or somebody else has the step."""


class UnknownStepsError(FenceLostError):
    """Of the steps `ids`, which nobody had looked at before they ran, at least one does not exist."""

    def __init__(self, ids: Collection[UUID]) -> None:
        super().__init__(f"not all of {len(ids)} steps exist")
        self.ids = frozenset(ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One attempt's outcome. `result` is JSON text, or `stored` the object that it is; a `scheduled` one is tried
    again after `wait_s`.

    `worker` is who leased the step, None for an inline one. `is_solo`: its job has no other step. `unread`: nobody
    has looked whether the step is still ready for this attempt; if it is not, nothing comes of it.
    """

    step_id: UUID
    attempt: int
    state: Ending
    cause: Cause
    result: str | None = None
    stored: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    wait_s: float | None = None
    worker: UUID | None = None
    is_solo: bool = False
    unread: bool = False


class EndedJob(NamedTuple):
    """A job that has ended: its kind, its state, and seconds from when it was due."""

    kind: str
    state: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Announced:
    """A step that is ready, and what made it so."""

    job_id: UUID
    step_id: UUID
    attempt: int
    handler: str
    leased: bool
    cause: Cause
    args: Mapping[str, Any] | None = None
    """Where it waited for nothing and this is its first attempt: what it is called with."""
    alone: bool = False
    """It is its job's only step."""


def cause_in_job(row: Any) -> Cause:
    """What follows from a job, or from a step of it without an event: in the job's trace and conversation."""
    return Cause(None, row.traceparent, row.correlation)


async def advance(connection: AsyncConnection, ended: Sequence[Ended]) -> tuple[list[Announced], list[EndedJob]]:
    """End these attempts, each of another step; return what is ready now, and the jobs that have ended.

    Raises `FenceLostError` when one of them was not running any more, unless it was `unread`.
    """
    solos = [one for one in ended if ends_alone(one)]
    if not solos:
        return await _advance(connection, ended)
    if len(solos) == len(ended):
        return [], await _end_solos(connection, solos)
    await store.lock_steps(connection, [one.step_id for one in ended])  # two statements end them, in no one order
    others = [one for one in ended if not ends_alone(one)]
    announced, jobs = await _advance(connection, others)
    return announced, jobs + await _end_solos(connection, solos)


def ends_alone(ended: Ended) -> bool:
    """Whether its job ends in the same statement."""
    return ended.is_solo and ended.state == "succeeded" and ended.stored is None


async def _end_solos(connection: AsyncConnection, solos: Sequence[Ended]) -> list[EndedJob]:
    told: store.Columns = {
        "id": [one.step_id for one in solos],
        "attempt": [one.attempt for one in solos],
        "result": [one.result for one in solos],
        "worker": [one.worker for one in solos],
    }
    jobs, ids = await store.end_solos(connection, told)
    if len(jobs) < len(solos):
        await _require_ended(connection, ids, solos)
    return [EndedJob(kind, "succeeded", duration_s) for kind, duration_s in jobs]


async def _advance(connection: AsyncConnection, ended: Sequence[Ended]) -> tuple[list[Announced], list[EndedJob]]:
    rows = await store.end_steps(connection, _ended_columns(ended))
    if len(rows) < len(ended):
        ended = await _require_ended(connection, [row.id for row in rows], ended)
        if not ended:
            return [], []
    errors = {one.step_id: json.dumps(one.error) for one in ended if one.error is not None}
    if errors:
        await store.insert_attempts(connection, _attempt_columns(ended, errors))
    succeeded = [row.id for row in rows if row.state == "succeeded" and row.has_children]
    failed = [row.id for row in rows if row.state == "failed" and row.has_children]
    skipped = await store.skip_steps(connection, failed) if failed else []
    lost = failed + [row.id for row in skipped]
    children = await store.advance_children(connection, succeeded, lost) if succeeded or lost else []
    causes = {one.step_id: one.cause for one in ended}
    # A skipped step has no cause of its own: whatever it readies follows from this batch.
    announced = [
        Announced(row.job_id, row.id, row.attempt, row.handler, row.leased, causes.get(row.parent, ended[0].cause))
        for row in children
        if row.state == "ready"
    ]
    jobs = await store.advance_jobs(connection, _counted(rows, skipped, errors))
    return announced, [EndedJob(job.kind, job.state, job.duration_s) for job in jobs]


async def _require_ended(
    connection: AsyncConnection, ids: Collection[UUID], ended: Sequence[Ended]
) -> Sequence[Ended]:
    """Those of `ended` whose steps are `ids`. The others were `unread`, and announced for nothing.

    Raises `FenceLostError` where they were not, and `UnknownStepsError`.
    """
    found = set(ids)
    lost = [one for one in ended if one.step_id not in found]
    if not all(one.unread for one in lost):
        raise FenceLostError(f"{len(lost)} of {len(ended)} attempts were not running any more")
    wanted = [one.step_id for one in lost]
    if len(await store.existing(connection, wanted)) < len(wanted):
        raise UnknownStepsError(wanted)
    return [one for one in ended if one.step_id in found]


def _ended_columns(ended: Sequence[Ended]) -> store.Columns:
    return {
        "id": [one.step_id for one in ended],
        "attempt": [one.attempt for one in ended],
        "state": [one.state for one in ended],
        "result": [one.result for one in ended],
        "stored": [None if one.stored is None else json.dumps(one.stored) for one in ended],
        "error": [None if one.error is None else json.dumps(one.error) for one in ended],
        "wait_s": [one.wait_s for one in ended],
        "worker": [one.worker for one in ended],
    }


def _attempt_columns(ended: Sequence[Ended], errors: Mapping[UUID, str]) -> store.Columns:
    failed = [one for one in ended if one.step_id in errors]
    return {
        "step_id": [one.step_id for one in failed],
        "attempt": [one.attempt for one in failed],
        "error": [errors[one.step_id] for one in failed],
    }


def _counted(rows: Sequence[Row[Any]], skipped: Sequence[Row[Any]], errors: Mapping[UUID, str]) -> store.Columns:
    """How many steps of each job ended, failed, and were lost to its result; with the first error."""
    counts: dict[UUID, dict[str, Any]] = {}
    for row in (*rows, *skipped):
        count = counts.setdefault(
            row.job_id, {"id": row.job_id, "ended": 0, "failed": 0, "lost": 0, "error": None}
        )
        if row.state == "scheduled":
            continue
        count["ended"] += 1
        if row.state == "failed":
            count["failed"] += 1
            count["error"] = count["error"] or errors.get(row.id)
        if row.state != "succeeded" and row.is_output:
            count["lost"] += 1
    return store.columns(list(counts.values()))
