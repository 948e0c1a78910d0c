"""A schedule as code declares it, and as its row tells it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Row

from shared.errors import BusinessError
from shared.jobs.schedules.catch_up import LATEST, MADE_UP_MAX, schedule_id
from shared.jobs.schedules.cron import DEFAULT_ZONE, Cron, Every
from shared.jobs.signatures import Signature

Overlap = Literal["skip", "queue", "allow"]
"""What becomes of a firing while an earlier one's job is open: it is left out; it waits; it runs beside it."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAME_MAX = 100


_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAME_MAX = 100


class ScheduleNotFoundError(BusinessError):
    """There is no schedule of this name, or no code declares it any more."""


class TooManyFiringsError(BusinessError):
    """More due times were asked for than fire at once."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is submitted when.

        Schedule("daily-sales-report", Cron("0 9 * * *"), lambda due: sales_report.s(day=due.date()))

    `work` makes the job of a firing; it is given the due time in the schedule's zone, which is its logical date,
    however late it fires. A firing that is more than `grace_s` late is missed; the newest `made_up` of those fire
    all the same. Raises `ValueError` for a name that is not lower-case words with hyphens.
    """

    name: str
    rule: Cron | Every
    work: Callable[[datetime], Signature]
    grace_s: int = 60
    made_up: int = LATEST
    overlap: Overlap = "queue"
    id: UUID = field(init=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > _NAME_MAX:
            raise ValueError(f"schedule {self.name!r}: a name is lower-case words with hyphens between them")
        if self.grace_s < 0 or not 0 <= self.made_up <= MADE_UP_MAX:
            raise ValueError(f"schedule {self.name}: neither grace nor what is made up for can be that")
        object.__setattr__(self, "id", schedule_id(self.name))

    def graph(self, due: datetime) -> Signature:
        """The job of the firing that was due at `due`."""
        return self.work(due.astimezone(ZoneInfo(zone_of(self.rule))))

    def row(self, now: datetime) -> dict[str, Any]:
        """What its row says, when it is declared at `now`."""
        return {
            "id": self.id,
            "name": self.name,
            "cron": self.rule.expression if isinstance(self.rule, Cron) else None,
            "every_s": self.rule.seconds if isinstance(self.rule, Every) else None,
            "zone": zone_of(self.rule),
            "grace_s": self.grace_s,
            "made_up": self.made_up,
            "overlap": self.overlap,
            "next_due": self.rule.next_after(now),
        }


def zone_of(rule: Cron | Every) -> str:
    """The zone in which a due time is told: an interval's is the default one."""
    return rule.zone if isinstance(rule, Cron) else DEFAULT_ZONE


def rule_of(row: Row[Any]) -> Cron | Every:
    """The rule that is in effect: the row's, which the newest version of the code has declared."""
    return Every(row.every_s) if row.cron is None else Cron(row.cron, row.zone)


def grace_of(row: Row[Any]) -> timedelta:
    """The grace of a row."""
    return timedelta(seconds=row.grace_s)
