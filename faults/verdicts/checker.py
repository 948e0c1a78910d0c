"""Compares the orders that are there with the verdicts on them. Pure functions.

Each class of damage is proved by tests that plant it (tests/unit/test_faults_verdicts.py, and on a broken batch
tests/integration/test_verdicts_sabotaged.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from faults.beside import Findings

BATCH = "batch"
"""As the fraud service says of an evaluation that the night brought."""
_SUCCEEDED, _FAILED = "succeeded", "failed"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An order's evaluation at the fraud service, and whether its event or the night brought it."""

    verdict: str
    by: str


@dataclass(frozen=True, slots=True)
class JobFound:
    """A job of the fraud service."""

    id: UUID
    kind: str
    state: str


@dataclass(frozen=True, slots=True)
class Found:
    """All that is there.

    `evaluations` by order, `effects`: each verdict that reached the order service, by order, in that order.
    """

    evaluations: Mapping[UUID, Evaluated] = field(default_factory=dict)
    effects: Mapping[UUID, Sequence[str]] = field(default_factory=dict)
    jobs: Sequence[JobFound] = ()


@dataclass(slots=True)
class VerdictFindings(Findings):
    """What the check found: ids of orders and jobs, as text. Nothing in any list is sound."""

    evaluated: int = 0
    by_batch: int = 0
    unjudged: list[str] = field(default_factory=list)
    """Orders without a verdict in time."""
    untold: list[str] = field(default_factory=list)
    """Orders whose verdict did not reach the order service in time."""
    told_twice: list[str] = field(default_factory=list)
    """Orders whose verdict reached it more than once, as events of their own."""
    wrong: list[str] = field(default_factory=list)
    """Orders of which it was told another verdict than there is, or one that there is not."""
    unended: list[str] = field(default_factory=list)
    """Jobs that have not ended in time."""
    failed: list[str] = field(default_factory=list)
    """Jobs that ended in another way than they should."""
    lists: list[str] = field(default_factory=list)
    """What was wrong with the threat list that was in force, or with the alert."""


def check(
    orders: Collection[UUID], found: Found, to_fail: Collection[UUID] = (), lists: Sequence[str] = ()
) -> VerdictFindings:
    """Classify every order that has to have a verdict, every verdict, and every job; those `to_fail` should."""
    by_batch = sum(one.by == BATCH for one in found.evaluations.values())
    verdict = VerdictFindings(len(orders), len(found.evaluations), by_batch, lists=list(lists))
    verdict.unjudged = sorted(str(one) for one in set(orders) - found.evaluations.keys())
    told = found.effects.keys()
    verdict.untold = sorted(str(one) for one in (set(orders) & found.evaluations.keys()) - told)
    for order_id, verdicts in found.effects.items():
        if len(verdicts) > 1:
            verdict.told_twice.append(str(order_id))
        evaluated = found.evaluations.get(order_id)
        if evaluated is None or set(verdicts) != {evaluated.verdict}:
            verdict.wrong.append(str(order_id))
    for job in found.jobs:
        name = f"{job.kind} {job.id}"
        if job.state not in {_SUCCEEDED, _FAILED, "cancelled"}:
            verdict.unended.append(name)
        elif job.state != (_FAILED if job.id in to_fail else _SUCCEEDED):
            verdict.failed.append(name)
    return verdict
