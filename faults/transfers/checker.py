"""Compares the transfers that were asked for with what became of them. Pure functions.

Each class of damage is proved by tests that plant it (tests/unit/test_faults_transfers.py). What is true of the
ledger as a whole is asked of the wallet's own audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from faults.beside import Findings

_PENDING, _COMPLETED, _CANCELLED = "pending", "completed", "cancelled"


@dataclass(frozen=True, slots=True)
class Asked:
    """A transfer that was asked for; the amount is in minor units."""

    sender_id: UUID
    receiver_id: UUID
    amount: int


@dataclass(frozen=True, slots=True)
class TransferFound:
    """A transfer's row."""

    id: UUID
    asked: Asked
    status: str


@dataclass(slots=True)
class TransferFindings(Findings):
    """What the check found: ids of transfers, rules of the ledger. Nothing in any list is sound."""

    transfers: int = 0
    completed: int = 0
    taken_back: int = 0
    lost: list[str] = field(default_factory=list)
    """Acknowledged, and not there."""
    unended: list[str] = field(default_factory=list)
    """Still pending when there was time enough."""
    wrong: list[str] = field(default_factory=list)
    """Another sender, receiver or amount than asked for, or another end than the client was told or may expect."""
    doubled: list[str] = field(default_factory=list)
    """Two transfers for one key, or more transfers than were asked for."""
    untold: list[str] = field(default_factory=list)
    """Completed transfers of which their senders were not notified in time."""
    told_twice: list[str] = field(default_factory=list)
    """Events of transfers that have two notifications."""
    broken: list[str] = field(default_factory=list)
    """Rules that the audit found broken, and where."""
    unserved: list[str] = field(default_factory=list)
    """What says that no transfers are taken any more after the fault."""


@dataclass(slots=True)
class Told:
    """What clients were told: `acknowledged` by the id that they were answered with.

    `unanswered` counts the keys for which nobody heard an end; of each there may be one transfer. `doubled` are
    ids that were given for a key that had another.
    """

    acknowledged: dict[UUID, Asked] = field(default_factory=dict)
    taken_back: set[UUID] = field(default_factory=set)
    unanswered: int = 0
    taking_back: set[UUID] = field(default_factory=set)
    """Asked to be taken back, whatever the answer was."""
    doubled: list[str] = field(default_factory=list)


def check(told: Told, found: Sequence[TransferFound], broken: Sequence[str] = ()) -> TransferFindings:
    """Classify every transfer; `broken` is what the audit said."""
    rows = {one.id: one for one in found}
    verdict = TransferFindings(len(told.acknowledged), transfers=len(rows), broken=list(broken))
    verdict.completed = sum(one.status == _COMPLETED for one in found)
    verdict.taken_back = sum(one.status == _CANCELLED for one in found)
    verdict.lost = sorted(str(id_) for id_ in told.acknowledged.keys() - rows.keys())
    verdict.unended = [str(one.id) for one in found if one.status == _PENDING]
    verdict.wrong = [str(one.id) for one in found if one.status != _PENDING and not _is_right(one, told)]
    strangers = [str(id_) for id_ in rows if id_ not in told.acknowledged]
    verdict.doubled = [*told.doubled, *strangers[told.unanswered :]]
    return verdict


def _is_right(one: TransferFound, told: Told) -> bool:
    """Whether it is what was asked for, and ended as it may: nothing here makes a transfer fail."""
    asked = told.acknowledged.get(one.id, one.asked)
    if one.id in told.taken_back:
        allowed = {_CANCELLED}
    elif one.id in told.taking_back:
        allowed = {_CANCELLED, _COMPLETED}
    else:
        allowed = {_COMPLETED}
    return asked == one.asked and one.status in allowed
