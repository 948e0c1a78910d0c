"""Which due times of a schedule fire now: on time, made up for, or given up. Pure.

A due time is *missed* once it is more than the grace late. What is not missed fires, however many; of what is
missed, the newest few fire that the schedule makes up for. A firing's job has an id made of the schedule and the
due time, so that whoever fires it again, whatever the clock did meanwhile, finds it there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import NAMESPACE_OID, UUID, uuid5

from shared.jobs.schedules.cron import Rule

MADE_UP_MAX = 1_000
"""So many missed due times a schedule makes up for at most, and so many fire at once."""

NONE = 0
LATEST = 1

_STEP = timedelta(microseconds=1)
_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Firings:
    """What fires now, in its order, whether more was missed and is given up, and what is waited for then."""

    due: tuple[datetime, ...]
    given_up: bool
    next_due: datetime


def firings(rule: Rule, next_due: datetime, now: datetime, *, grace: timedelta, made_up: int) -> Firings:
    """What a schedule that waits for `next_due` fires at `now`.

    Of what is missed the newest `made_up` fire: `NONE`, `LATEST`, or more, to `MADE_UP_MAX`.
    """
    if next_due > now:
        return Firings((), given_up=False, next_due=next_due)
    on_time = newest(rule, max(next_due, now - grace), now, MADE_UP_MAX)
    missed = newest(rule, next_due, now - grace - _STEP, min(made_up, MADE_UP_MAX - len(on_time)))
    due = (*missed, *on_time)
    return Firings(due, given_up=next_due not in due[:1], next_due=rule.next_after(now))


def waits_for(rule: Rule, next_due: datetime, planned_at: datetime, now: datetime) -> datetime:
    """What a schedule waits for that was planned at `planned_at`.

    That is its `next_due`, unless the clock was set back since: then it is planned anew, or it would rest until
    the clock is where it was. What fired already fires no second time.
    """
    return next_due if planned_at <= now else min(next_due, rule.next_after(now))


def newest(rule: Rule, first: datetime, last: datetime, count: int) -> tuple[datetime, ...]:
    """The newest due times from `first` to `last`, both included, `count` at most, in their order.

    It looks back no further than it must: a year away costs a rule of every minute no more than an hour.
    """
    span = timedelta(minutes=1)
    while count > 0 and first <= last:
        found: deque[datetime] = deque(maxlen=count)
        begin = max(first, last - span)
        due = rule.next_after(begin - _STEP)
        while due <= last:
            found.append(due)
            due = rule.next_after(due)
        if len(found) == count or begin == first:
            return tuple(found)
        span *= 2
    return ()


def due_between(rule: Rule, first: datetime, last: datetime, count_max: int) -> tuple[datetime, ...]:
    """All due times from `first` to `last`, both included. Raises `ValueError` for more than `count_max`."""
    found: list[datetime] = []
    due = rule.next_after(first - _STEP)
    while due <= last:
        if len(found) == count_max:
            raise ValueError(f"more than {count_max} due times")
        found.append(due)
        due = rule.next_after(due)
    return tuple(found)


def schedule_id(name: str) -> UUID:
    """The id of the schedule with this name, the same in every process."""
    return uuid5(NAMESPACE_OID, f"tandem.schedule.{name}")


def firing_id(schedule: UUID, due: datetime) -> UUID:
    """The id of the one job that a firing is: shaped as a UUID of version 7, whose time is the due time."""
    milliseconds = max(0, (due - _EPOCH) // _MILLISECOND)
    told = sha256(schedule.bytes + due.astimezone(UTC).isoformat(timespec="microseconds").encode()).digest()
    bits = int.from_bytes(told[:10])
    return UUID(
        int=milliseconds << 80 | 7 << 76 | (bits >> 68 & 0xFFF) << 64 | 0b10 << 62 | bits & 0x3FFF_FFFF_FFFF_FFFF
    )
