"""When a schedule is due: cron expressions in a time zone, and intervals. Pure.

The daylight-saving rule is Debian cron's. A *fixed time* (neither minute nor hour begins with a star) that the
clock leaps over is due at the end of the leap, and one that the clock shows twice is due the first time only: a
daily job runs once a day. Every other expression follows the clock: what is leapt over is not due, what is shown
twice is due twice, so that an hourly job runs every hour.

cronsim reads the expression and walks over clock times without a zone. Which moments these are is decided here:
given a zone, cronsim 2.8 passes over due times where the clock is set by half an hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

DEFAULT_ZONE = "Asia/Seoul"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_NOTHING = timedelta()
_FIELDS = 5
_CLOCK = _EPOCH.replace(tzinfo=None)


class Rule(Protocol):
    """When something is due: a function of the moment alone, so that every scheduler, restarted or not, agrees."""

    def next_after(self, moment: datetime) -> datetime:
        """The first due time after `moment` (an aware one), in UTC."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """Due every so many whole seconds, counted from 1970: every 10 s is :00, :10, … whenever it was started."""

    seconds: int

    def __post_init__(self) -> None:
        if self.seconds < 1:
            raise ValueError("an interval is at least one second")

    def next_after(self, moment: datetime) -> datetime:
        return _EPOCH + timedelta(seconds=((moment - _EPOCH) // _SECOND // self.seconds + 1) * self.seconds)


@dataclass(frozen=True, slots=True)
class Cron:
    """Minute, hour, day of month, month and day of week in the time of a zone, as Debian cron reads them.

    Raises `ValueError` for an expression that cannot be read or is never due, and for an unknown zone.
    """

    expression: str
    zone: str = DEFAULT_ZONE

    def __post_init__(self) -> None:
        if len(self.expression.split()) != _FIELDS:
            raise ValueError(f"cron expression {self.expression!r}: five fields are needed")
        try:
            if next(CronSim(self.expression, _CLOCK), None) is None:
                raise ValueError(f"cron expression {self.expression!r} is never due")
        except CronSimError as error:
            raise ValueError(f"cron expression {self.expression!r}: {error}") from None
        try:
            ZoneInfo(self.zone)
        except (OSError, ValueError, KeyError):
            raise ValueError(f"time zone {self.zone!r} is not known") from None

    def next_after(self, moment: datetime) -> datetime:
        zone = ZoneInfo(self.zone)
        local = moment.astimezone(zone)
        shown = local.replace(tzinfo=None, fold=0)
        # What the clock has shown already it may be about to show again.
        repeated = max(_NOTHING, _offset(shown, zone, 0) - _offset(shown, zone, 1))
        found: list[datetime] = []
        for clock in CronSim(self.expression, shown - repeated):
            found += [due for due in self._moments(clock, zone) if due > moment]
            if found and clock > shown:
                return min(found)
        raise ValueError(f"cron expression {self.expression!r} is never due again")

    def _moments(self, clock: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """The moments that are due because the zone's clock shows, or would have shown, `clock`."""
        minute, hour = self.expression.split()[:2]
        fixed = not minute.startswith("*") and not hour.startswith("*")
        first, second = _offset(clock, zone, 0), _offset(clock, zone, 1)
        if first < second:
            if fixed:
                yield _leap(clock, first, second, zone)
            return
        yield (clock - first).replace(tzinfo=UTC)
        if first > second and not fixed:
            yield (clock - second).replace(tzinfo=UTC)


def _offset(clock: datetime, zone: ZoneInfo, fold: int) -> timedelta:
    """The zone's distance from UTC; where `clock` is missing or repeated, before the change (fold 0) or after."""
    return zone.utcoffset(clock.replace(fold=fold)) or _NOTHING


def _leap(clock: datetime, before: timedelta, after: timedelta, zone: ZoneInfo) -> datetime:
    """The moment at which the zone's clock leapt over `clock`."""
    early, late = (clock - after).replace(tzinfo=UTC), (clock - before).replace(tzinfo=UTC)
    while late - early > _SECOND:
        middle = early + (late - early) // 2
        if middle.astimezone(zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return late.replace(microsecond=0)
