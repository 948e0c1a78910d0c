"""What a run of the benchmark does, and about how long it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.command_line import plan_of
from bench.errors import BenchError
from bench.past import require_room
from bench.rows import (
    ALONE,
    CELERY,
    GROUPS,
    LIMITS,
    LONG,
    LONG_PEAK,
    NAMES,
    OF_ANSWERS,
    OF_JOBS,
    OF_MONEY,
    PAIR,
    PEAK,
    ROWS,
    TANDEM,
    Contender,
)
from deploy.topology import BROKERS

_MINUTES_MAX = 20


@pytest.mark.parametrize("group", GROUPS)
def test_a_whole_run_and_one_of_a_group_take_less_than_twenty_minutes(group: str) -> None:
    plan = plan_of(["--group", group])
    assert plan.rounds >= 5
    assert set(plan.brokers) == set(BROKERS)
    assert plan.estimate_s < _MINUTES_MAX * 60


def test_every_row_but_that_of_make_profile_is_in_one_group_and_the_first_is_run_where_nothing_is_said() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted({*NAMES} - {LIMITS})
    assert plan_of([]) == plan_of(["--group", next(iter(GROUPS))])
    assert plan_of(["--row", "relay", "--group", "money"]).rows == ("relay", *GROUPS["money"])


def test_every_row_runs_alone() -> None:
    for row in ROWS:
        plan = plan_of(["--row", row.name, "--only", row.broker])
        assert {row.ours, row.theirs} <= set(plan.contenders)
        assert all(plan.events_of(contender) > 0 for contender in plan.contenders)


def test_each_round_has_an_order_of_its_own_in_which_what_is_divided_by_each_other_stands_together() -> None:
    plan = plan_of(["--row", "orders", "--row", "relay", "--row", "two-processes"])
    orders = [plan.order_of(number) for number in range(1, 6)]
    assert {frozenset(order) for order in orders} == {frozenset(plan.measured)}
    assert len({tuple(order) for order in orders}) == len(orders)
    for order in orders:
        places = [(order.index(row.ours), order.index(row.theirs)) for row in ROWS if row.name in plan.rows]
        assert {abs(ours - theirs) for ours, theirs in places} == {1}


def test_what_most_rows_are_divided_by_has_several_turns_in_a_round_all_beside_what_it_is_divided_with() -> None:
    plan = plan_of(["--row", "backlog", "--row", "relay", "--only", "kafka"])
    tandem, long = (Contender(name, "kafka") for name in (TANDEM, LONG))
    for number in range(1, 6):
        order = plan.order_of(number)
        assert (order.count(tandem), order.count(long)) == (3, 1) == (plan.turns_of(tandem), plan.turns_of(long))
        places = [place for place, contender in enumerate(order) if contender in {tandem, long}]
        assert places == list(range(places[0], places[0] + 4))
    drained = 3 * plan.events_of(tandem) + plan.events_of(long)
    relayed = sum(map(plan.events_of, (each for each in plan.measured if each not in {tandem, long})))
    assert plan.work == plan.rounds * 2 * (drained + relayed)


def test_what_is_slow_gets_fewer_events_and_a_long_backlog_as_many_as_are_said() -> None:
    plan = plan_of(["--events", "2000", "--long", "7000"])
    tandem, celery, long = (plan.events_of(Contender(name, "rabbit")) for name in (TANDEM, CELERY, LONG))
    assert celery < tandem == 2_000
    assert long == 7_000


def test_memory_is_measured_with_the_drain_that_it_is_of() -> None:
    plan = plan_of(["--row", "backlog", "--only", "kafka", "--events", "2000", "--long", "7000"])
    assert {contender.name for contender in plan.measured} == {TANDEM, LONG}
    assert [plan.events_of(Contender(name, "kafka")) for name in (PEAK, LONG_PEAK)] == [2_000, 7_000]


@pytest.mark.parametrize(("events", "rabbit", "kafka"), [(2_000, 2_000, 6_000), (70_000, 60_000, 60_000)])
def test_two_processes_and_one_drain_as_many_events_with_a_bound(events: int, rabbit: int, kafka: int) -> None:
    plan = plan_of(["--events", str(events)])
    for broker, each in (("rabbit", rabbit), ("kafka", kafka)):
        assert {plan.events_of(Contender(name, broker)) for name in (PAIR, ALONE)} == {each}


@pytest.mark.parametrize("events", [2_000, 70_000])
def test_what_is_divided_by_each_other_has_as_many_events_but_for_a_long_backlog_and_what_is_slow(
    events: int,
) -> None:
    plan = plan_of(["--events", str(events)])
    for row in ROWS:
        if row.name in {"hand-written", "overlapped", "inbox-alone", "two-processes", "traced", "full-inbox"}:
            assert plan.events_of(row.ours) == plan.events_of(row.theirs), row


def test_no_ratio_of_drains_or_orders_divides_across_brokers() -> None:
    """Jobs, transfers and their answers are divided by what people would use instead, wherever that runs."""
    rows = [row for row in ROWS if row.ours.name not in (*OF_JOBS, *OF_MONEY, *OF_ANSWERS)]
    assert {row.name for row in rows if row.ours.broker != row.theirs.broker} == set()


@pytest.mark.parametrize(("arguments", "tried"), [(["--row", "celery"], True), (["--row", "relay"], False)])
def test_pools_are_tried_where_one_is_wanted(arguments: list[str], tried: bool) -> None:
    assert bool(plan_of(arguments).trial_events) is tried


def test_a_disk_without_room_for_the_full_inbox_is_said_in_a_sentence(tmp_path: Path) -> None:
    require_room(tmp_path, 1)
    with pytest.raises(BenchError, match=r"an inbox of 10,000,000,000,000 rows wants .* GB of disk"):
        require_room(tmp_path, 10**13)
