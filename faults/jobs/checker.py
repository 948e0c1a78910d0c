"""Compares the jobs that were submitted, and the firings that were due, with what became of them. Pure functions.

Each class of damage is proved by tests that plant it (tests/unit/test_faults_jobs.py, and on a broken engine
tests/integration/test_jobs_sabotaged.py).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from faults.beside import Findings

_ENDED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class JobFound:
    """A job's row. `result` is its one output's, as JSON text; `due_at` is told of firings alone."""

    id: UUID
    state: str
    result: str | None
    expected: str | None
    """What its result should be, as JSON text; None where it should fail."""
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StepFound:
    """A step's row; `result` is JSON text."""

    id: UUID
    job_id: UUID
    handler: str
    state: str
    result: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """All that is there of the jobs that were submitted by some moment.

    `effects`: what each step recorded, in that order, as text. `next_due`: what the schedule waits for.
    """

    jobs: Sequence[JobFound] = ()
    steps: Sequence[StepFound] = ()
    effects: Mapping[UUID, Sequence[str]] = field(default_factory=dict)
    next_due: datetime | None = None


@dataclass(slots=True)
class JobFindings(Findings):
    """What the check found: ids of jobs and steps, and due times, as text. Nothing in any list is sound."""

    jobs: int = 0
    steps: int = 0
    firings: int = 0
    lost: list[str] = field(default_factory=list)
    """Acknowledged jobs that are not there."""
    unended: list[str] = field(default_factory=list)
    """Jobs that have not ended in time."""
    wrong: list[str] = field(default_factory=list)
    """Jobs that ended in another way, or with another result, than their graph says."""
    without_effect: list[str] = field(default_factory=list)
    """Steps that succeeded and have no effect."""
    doubled: list[str] = field(default_factory=list)
    """Steps with more than one effect: a join that fired twice among them."""
    stray: list[str] = field(default_factory=list)
    """Effects of steps that did not succeed, or other than their results."""
    missed: list[str] = field(default_factory=list)
    """Due times without a job."""
    fired_twice: list[str] = field(default_factory=list)
    """Due times with more than one."""
    unserved: list[str] = field(default_factory=list)
    """What says that no jobs are taken any more after the fault."""


def check(acknowledged: Collection[UUID], found: Found, every: timedelta) -> JobFindings:
    """Classify every job, step and firing; the schedule is due every so often."""
    ids = {job.id for job in found.jobs}
    due = sorted(job.due_at for job in found.jobs if job.due_at is not None)
    verdict = JobFindings(len(acknowledged), len(found.jobs), len(found.steps), len(due))
    verdict.lost = sorted(str(one) for one in set(acknowledged) - ids)
    for job in found.jobs:
        _check_job(job, verdict)
    for step in found.steps:
        _check_step(step, found.effects.get(step.id, ()), verdict)
    _check_firings(due, found.next_due, every, verdict)
    return verdict


def _check_job(job: JobFound, verdict: JobFindings) -> None:
    if job.state not in _ENDED:
        verdict.unended.append(str(job.id))
    elif job.result != job.expected or job.state != ("failed" if job.expected is None else "succeeded"):
        verdict.wrong.append(str(job.id))


def _check_step(step: StepFound, effects: Sequence[str], verdict: JobFindings) -> None:
    name = f"{step.handler} {step.id}"
    if step.state != "succeeded":
        if effects:
            verdict.stray.append(name)
    elif not effects:
        verdict.without_effect.append(name)
    elif len(effects) > 1:
        verdict.doubled.append(name)
    elif effects[0] != (step.result or "").strip('"'):
        verdict.stray.append(name)


def _check_firings(
    due: Sequence[datetime], next_due: datetime | None, every: timedelta, verdict: JobFindings
) -> None:
    counted = Counter(due)
    verdict.fired_twice = [moment.isoformat() for moment, count in sorted(counted.items()) if count > 1]
    if not due or next_due is None:
        return
    moment = due[0]
    while moment < next_due:
        if moment not in counted:
            verdict.missed.append(moment.isoformat())
        moment += every


def by_step(rows: Sequence[tuple[UUID, str]]) -> dict[UUID, list[str]]:
    """Effects, in their order, by their step."""
    effects: dict[UUID, list[str]] = defaultdict(list)
    for step_id, value in rows:
        effects[step_id].append(value)
    return effects
