"""When schedules are due, on days on which clocks are set above all."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.jobs.schedules.cron import Cron, Every, Rule

ZONES = ("Asia/Seoul", "America/New_York", "Australia/Lord_Howe", "Europe/Berlin", "Pacific/Apia", "UTC")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
YEAR = st.integers(0, 700 * 86_400).map(lambda seconds: BEGIN + timedelta(seconds=seconds))
# New York and Lord Howe set their clocks in these hours.
CHANGES = st.sampled_from(["2026-03-08", "2026-11-01", "2026-04-04", "2026-10-03", "2026-03-29", "2026-10-25"])
NEAR_A_CHANGE = st.builds(
    lambda day, seconds: datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(seconds=seconds),
    CHANGES,
    st.integers(0, 86_400),
)
MOMENTS = NEAR_A_CHANGE | YEAR
ONE_FIELD = st.sets(st.integers(0, 59), min_size=1, max_size=3)
HOURS = st.sets(st.integers(0, 4) | st.integers(0, 23), min_size=1, max_size=3)


def shown(rule: Rule, begin: str, zone: str, count: int) -> list[str]:
    """The first due times after `begin`, as the zone's clock shows them, with the distance from UTC."""
    moment, due = datetime.fromisoformat(begin).replace(tzinfo=ZoneInfo(zone)), []
    for _ in range(count):
        moment = rule.next_after(moment)
        due.append(moment.astimezone(ZoneInfo(zone)).strftime("%d %H:%M%z"))
    return due


@pytest.mark.parametrize(
    ("expression", "begin", "expected"),
    [
        ("0 0 * * *", "2026-11-28T13:00", ["29 00:00+0900", "30 00:00+0900"]),
        ("0 0 * * 0", "2026-11-28T13:00", ["29 00:00+0900", "06 00:00+0900"]),
        ("30 * * * *", "2026-11-28T13:00", ["28 13:30+0900", "28 14:30+0900"]),
        ("0 9 * * *", "2026-11-28T09:00", ["29 09:00+0900", "30 09:00+0900"]),
        ("0 18 * * 1-5", "2026-11-27T18:30", ["30 18:00+0900", "01 18:00+0900"]),
        ("*/5 * * * *", "2026-11-28T13:02", ["28 13:05+0900", "28 13:10+0900"]),
        ("0 0 1 * *", "2026-11-28T13:00", ["01 00:00+0900", "01 00:00+0900"]),
    ],
)
def test_a_schedule_without_a_zone_is_due_by_the_clock_of_seoul(
    expression: str, begin: str, expected: list[str]
) -> None:
    assert shown(Cron(expression), begin, "Asia/Seoul", 2) == expected


def test_a_fixed_time_that_the_clock_leaps_over_is_due_right_after_the_leap() -> None:
    daily = Cron("30 2 * * *", "America/New_York")
    assert shown(daily, "2026-03-07T12:00", "America/New_York", 2) == ["08 03:00-0400", "09 02:30-0400"]
    assert shown(Cron("15 2 * * *", "Australia/Lord_Howe"), "2026-10-03T12:00", "Australia/Lord_Howe", 2) == [
        "04 02:30+1100",
        "05 02:15+1100",
    ]


def test_several_fixed_times_in_one_leap_are_due_together_once() -> None:
    assert shown(Cron("0,30 2,3 * * *", "America/New_York"), "2026-03-08T00:00", "America/New_York", 3) == [
        "08 03:00-0400",
        "08 03:30-0400",
        "09 02:00-0400",
    ]


def test_a_fixed_time_that_the_clock_shows_twice_is_due_the_first_time() -> None:
    daily = Cron("30 1 * * *", "America/New_York")
    assert shown(daily, "2026-10-31T12:00", "America/New_York", 2) == ["01 01:30-0400", "02 01:30-0500"]
    assert shown(Cron("40 1 * * *", "Australia/Lord_Howe"), "2026-04-04T12:00", "Australia/Lord_Howe", 2) == [
        "05 01:40+1100",
        "06 01:40+1030",
    ]


def test_an_hourly_schedule_is_due_every_hour_whatever_the_clock_shows() -> None:
    hourly = Cron("30 * * * *", "America/New_York")
    assert shown(hourly, "2026-11-01T00:45", "America/New_York", 3) == [
        "01 01:30-0400",
        "01 01:30-0500",
        "01 02:30-0500",
    ]
    assert shown(hourly, "2026-03-08T00:45", "America/New_York", 2) == ["08 01:30-0500", "08 03:30-0400"]


def test_where_the_clock_is_set_by_half_an_hour_nothing_is_passed_over() -> None:
    quarterly = Cron("*/15 3 * * *", "Australia/Lord_Howe")
    assert shown(quarterly, "2026-10-04T01:50", "Australia/Lord_Howe", 4) == [
        "04 03:00+1100",
        "04 03:15+1100",
        "04 03:30+1100",
        "04 03:45+1100",
    ]
    hourly = Cron("40 * * * *", "Australia/Lord_Howe")
    assert shown(hourly, "2026-04-05T01:00", "Australia/Lord_Howe", 3) == [
        "05 01:40+1100",
        "05 01:40+1030",
        "05 02:40+1030",
    ]


def by_the_clock(minutes: set[int], hours: set[int], zone: str, begin: datetime, end: datetime) -> list[datetime]:
    """The reference for what follows the clock: every minute is looked at."""
    found, moment = [], begin.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while moment <= end:
        local = moment.astimezone(ZoneInfo(zone))
        if local.minute in minutes and local.hour in hours:
            found.append(moment)
        moment += timedelta(minutes=1)
    return found


def at_fixed_times(
    minutes: set[int], hours: set[int], zone: str, begin: datetime, end: datetime
) -> list[datetime]:
    """The reference for fixed times: for each day, the first minute whose clock shows that time or a later one."""
    found, local_zone = set(), ZoneInfo(zone)
    day = (begin - timedelta(days=2)).date()
    while day <= (end + timedelta(days=2)).date():
        for hour in hours:
            for minute in minutes:
                wanted = datetime.combine(day, time(hour, minute))
                moment = wanted.replace(tzinfo=local_zone).astimezone(UTC) - timedelta(hours=2)
                while moment.astimezone(local_zone).replace(tzinfo=None) < wanted:
                    moment += timedelta(minutes=1)
                found.add(moment)
        day += timedelta(days=1)
    return sorted(moment for moment in found if begin < moment <= end)


def all_due(rule: Rule, begin: datetime, end: datetime) -> list[datetime]:
    found, moment = [], rule.next_after(begin)
    while moment <= end:
        found.append(moment)
        moment = rule.next_after(moment)
    return found


@settings(max_examples=60)
@given(ONE_FIELD, MOMENTS, st.sampled_from(ZONES))
def test_an_expression_that_follows_the_clock_is_due_at_every_minute_that_matches(
    minutes: set[int], begin: datetime, zone: str
) -> None:
    rule = Cron(f"{','.join(map(str, minutes))} * * * *", zone)
    end = begin + timedelta(hours=9)
    assert all_due(rule, begin, end) == by_the_clock(minutes, set(range(24)), zone, begin, end)


@settings(max_examples=60)
@given(ONE_FIELD, HOURS, MOMENTS, st.sampled_from(ZONES))
@example({30}, {2}, datetime(2026, 3, 8, 0, 0, tzinfo=UTC), "America/New_York")
def test_fixed_times_are_due_once_a_day_each(
    minutes: set[int], hours: set[int], begin: datetime, zone: str
) -> None:
    rule = Cron(f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * *", zone)
    end = begin + timedelta(hours=30)
    assert all_due(rule, begin, end) == at_fixed_times(minutes, hours, zone, begin, end)


RULES = st.one_of(
    st.builds(Every, st.integers(1, 100_000)),
    st.builds(
        Cron,
        st.sampled_from(["* * * * *", "*/7 1-3 * * *", "5,35 1,2 * * *", "0 0 * * 0", "30 * 1 * *", "0 2 29 2 *"]),
        st.sampled_from(ZONES),
    ),
)


@given(RULES, MOMENTS, st.floats(0, 1, exclude_max=True))
def test_a_scheduler_that_starts_in_between_waits_for_the_same_due_time(
    rule: Rule, begin: datetime, part: float
) -> None:
    due = rule.next_after(begin)
    assert begin < due
    between = begin + (due - begin) * part
    assert between >= due or rule.next_after(between) == due


def test_an_interval_does_not_drift_with_when_it_was_started() -> None:
    rule = Every(10)
    assert rule.next_after(datetime(2026, 11, 28, 12, 0, 7, 5, tzinfo=UTC)) == datetime(
        2026, 11, 28, 12, 0, 10, tzinfo=UTC
    )
    assert rule.next_after(datetime(2026, 11, 28, 12, 0, 10, tzinfo=UTC)).second == 20


@pytest.mark.parametrize("expression", ["", "* * * *", "* * * * * *", "61 * * * *", "0 0 30 2 *", "x 0 * * *"])
def test_an_expression_that_cannot_be_is_refused_at_once(expression: str) -> None:
    with pytest.raises(ValueError, match="cron expression"):
        Cron(expression)


@pytest.mark.parametrize("zone", ["Asia/Soul", "../etc/passwd", ""])
def test_an_unknown_zone_is_refused_at_once(zone: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        Cron("0 0 * * *", zone)


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one second"):
        Every(0)
