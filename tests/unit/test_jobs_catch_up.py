"""What fires when: nothing twice, nothing forgotten, whatever the clock and the schedulers do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.jobs.schedules.catch_up import (
    LATEST,
    MADE_UP_MAX,
    NONE,
    due_between,
    firing_id,
    firings,
    newest,
    schedule_id,
    waits_for,
)
from shared.jobs.schedules.cron import Cron, Every, Rule

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAILY = Cron("0 9 * * *")
RULES: list[Rule] = [Every(90), Every(3_600), DAILY, Cron("30 * * * *"), Cron("30 1 * * *", "America/New_York")]


@pytest.mark.parametrize(
    ("made_up", "days"), [(NONE, []), (LATEST, [28]), (3, [26, 27, 28]), (100, [*range(22, 29)])]
)
def test_after_a_week_away_as_much_is_made_up_as_the_schedule_says(made_up: int, days: list[int]) -> None:
    nine = datetime(2026, 11, 22, tzinfo=UTC)
    plan = firings(DAILY, nine, NOON, grace=MINUTE, made_up=made_up)
    assert [due.day for due in plan.due] == days
    assert plan.given_up == (len(days) < 7)
    assert plan.next_due == datetime(2026, 11, 29, tzinfo=UTC)


def test_what_is_late_within_the_grace_is_not_missed() -> None:
    plan = firings(Every(10), NOON - timedelta(minutes=5), NOON, grace=timedelta(seconds=20), made_up=NONE)
    assert plan.due == (NOON - timedelta(seconds=20), NOON - timedelta(seconds=10), NOON)
    assert plan.given_up


def test_what_is_not_due_does_not_fire() -> None:
    plan = firings(DAILY, NOON + MINUTE, NOON, grace=MINUTE, made_up=LATEST)
    assert plan.due == ()
    assert plan.next_due == NOON + MINUTE


def test_a_year_away_is_caught_up_with_without_walking_through_it() -> None:
    asked: list[datetime] = []

    class Counted:
        def next_after(self, moment: datetime) -> datetime:
            asked.append(moment)
            return Every(60).next_after(moment)

    firings(Counted(), NOON - timedelta(days=365), NOON, grace=MINUTE, made_up=LATEST)
    assert len(asked) < 50


@given(st.sampled_from(RULES), st.integers(0, 100_000), st.integers(0, 20))
def test_the_newest_are_the_last_of_all(rule: Rule, seconds: int, count: int) -> None:
    first = NOON - timedelta(seconds=seconds)
    everything = due_between(rule, first, NOON, 20_000)
    assert newest(rule, first, NOON, count) == everything[len(everything) - min(count, len(everything)) :]


def test_what_is_just_as_late_as_the_grace_fires_once() -> None:
    plan = firings(Every(10), NOON - MINUTE, NOON, grace=timedelta(seconds=20), made_up=2)
    assert [(NOON - due).seconds for due in plan.due] == [40, 30, 20, 10, 0]


def test_once_a_clock_that_ran_ahead_is_set_right_a_schedule_is_due_as_before() -> None:
    ahead = NOON + timedelta(days=7)
    plan = firings(DAILY, DAILY.next_after(NOON), ahead, grace=MINUTE, made_up=LATEST)
    assert len(plan.due) == 1
    assert waits_for(DAILY, plan.next_due, ahead, NOON) == DAILY.next_after(NOON)
    assert waits_for(DAILY, plan.next_due, ahead, ahead) == plan.next_due


TURNS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(
            [0.0, 0.4, 5.0, 45.0, 61.0, 4_000.0, 90_000.0, 604_800.0, -0.5, -3.0, -3_600.0, -700_000.0]
        ),
    ),
    max_size=25,
)


@settings(max_examples=50)
@given(st.sampled_from(RULES), TURNS)
def test_whatever_clock_and_schedulers_do_each_due_time_fires_once(
    rule: Rule, turns: list[tuple[int, float]]
) -> None:
    """Three schedulers share the row that the database holds; the clock runs, leaps, and is set back."""
    now = latest = NOON
    begin = NOON
    row = (rule.next_after(NOON), NOON)  # next due, planned at
    jobs: dict[object, datetime] = {}
    for _scheduler, step in turns:
        now += timedelta(seconds=step)
        latest = max(latest, now)
        begin = min(begin, now)
        next_due = waits_for(rule, *row, now)
        plan = firings(rule, next_due, now, grace=MINUTE, made_up=MADE_UP_MAX)
        for due in plan.due:
            assert due <= now, "it fires before it is due"
            assert jobs.setdefault(firing_id(schedule_id("s"), due), due) == due
        assert plan.next_due > now
        row = (plan.next_due, now)
    fired = sorted(jobs.values())
    expected = newest(rule, NOON + timedelta(microseconds=1), latest, MADE_UP_MAX)
    assert set(expected) <= set(fired), "a due time is missed"
    assert all(rule.next_after(due - timedelta(microseconds=1)) == due for due in fired), (
        "what was never due fired"
    )


@given(st.sampled_from(RULES), TURNS, st.integers(0, 3))
def test_between_two_looks_no_more_is_given_up_than_was_missed(
    rule: Rule, turns: list[tuple[int, float]], made_up: int
) -> None:
    now, next_due = NOON, rule.next_after(NOON)
    for _, step in turns:
        now += timedelta(seconds=abs(step))
        plan = firings(rule, next_due, now, grace=MINUTE, made_up=made_up)
        assert list(plan.due) == sorted(set(plan.due))
        assert len(plan.due) <= MADE_UP_MAX
        if next_due <= now:
            pending = newest(rule, next_due, now, MADE_UP_MAX)
            assert plan.given_up == (plan.due[:1] != (next_due,))
            assert plan.due == pending[len(pending) - len(plan.due) :]
        assert plan.next_due >= next_due
        next_due = plan.next_due


@given(st.integers(0, 2**41).map(lambda count: NOON + timedelta(microseconds=count * 997)))
def test_the_id_of_a_firing_is_a_uuid_of_version_7_with_the_due_time_in_it(due: datetime) -> None:
    made = firing_id(schedule_id("daily-report"), due)
    assert made.version == 7
    assert made.variant == RFC_4122
    assert made.int >> 80 == (due - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert made == firing_id(schedule_id("daily-report"), due.astimezone())
    assert made != firing_id(schedule_id("weekly-report"), due)
    assert made != firing_id(schedule_id("daily-report"), due + timedelta(microseconds=1))


def test_a_firing_keeps_its_id_in_every_version() -> None:
    """A scheduler of the next version must find what this one fired."""
    assert str(firing_id(schedule_id("daily-report"), NOON)) == "01a22206-ca00-762b-84cb-ded0c544b025"
    assert str(schedule_id("daily-report")) == "5158b591-ed39-5248-83a8-c85c37ab853b"
