"""A ladder finds what a side carries, and says no more than its samples allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compare.command_line import DEFAULT_WORKLOAD
from compare.document import Summary
from compare.ladder import fitted, growing, lower_capacity, next_rate
from compare.measured import Climb, Rate, SteadyResult
from compare.report import words
from compare.report.page import render_page
from compare.report.pull_request import render_markdown
from compare.run import CAPACITY, RUNG, RunResult, plan
from compare.summary import summarise
from deploy.topology import BROKERS
from experiment.workload import Ladder, load_workload
from tests.compare.test_judgement import APART, run_result, steady

TRIES_MAX = 20


def rate(orders_per_s: float, growing: str | None = None, cores: float = 0.0, broker: str = "rabbit") -> Rate:
    result = steady("capacity", 0.02, {broker: 10 * cores})
    return Rate(orders_per_s, result, growing)


def searched(carries: Callable[[float], bool], first: float, highest: float) -> Climb:
    climb, orders_per_s = Climb(), first
    for _ in range(TRIES_MAX):
        climb.tries.append(rate(orders_per_s, None if carries(orders_per_s) else "the backlog grew"))
        following = next_rate(climb.tries, highest)
        if following is None:
            return climb
        orders_per_s = following
    raise AssertionError(f"no end after {TRIES_MAX} tries")


@given(st.floats(1, 990), st.floats(1, 1_000))
def test_the_search_comes_within_a_tenth_of_the_capacity(capacity: float, first: float) -> None:
    found = searched(lambda orders_per_s: orders_per_s <= capacity, first, 1_000).capacity
    assert found is not None
    assert found <= capacity <= found * 1.1


def test_what_is_carried_at_the_highest_rate_is_not_searched_beyond_it() -> None:
    climb = searched(lambda _: True, 30, 200)
    assert [each.orders_per_s for each in climb.tries] == [30, 60, 120, 200]
    assert climb.capacity == 200


def test_a_rate_that_fails_below_one_that_is_carried_is_noise() -> None:
    assert next_rate([rate(30, "a hiccup"), rate(15), rate(60)], 1_000) == 120


def load(**changes: Any) -> SteadyResult:
    result = steady("rung", 0.02, {})
    for name in ("errors", "overruns", "late"):
        if name in changes:
            setattr(result.load, name, changes.pop(name))
    return replace(result, **changes)


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (load(behind=(2, 6)), None),
        (load(behind=(40, 90)), None),  # of 1,000 events a twentieth
        (load(behind=(3, 54)), "the backlog grew from 3 to 54 events"),
        (load(errors={"503": 1}), "requests were not acknowledged: {'503': 1}"),
        (load(overruns=2), "2 requests found as many under way as are allowed"),
        (load(late=51), "51 of 1000 requests were sent late"),
    ],
)
def test_a_load_is_carried_while_nothing_piles_up(result: SteadyResult, why: str | None) -> None:
    assert growing(result) == why


def test_a_line_through_the_rungs_tells_idle_from_the_cost_of_an_event() -> None:
    climb = Climb(rungs={share: rate(0, cores=0.05 + share, broker="kafka") for share in (0.1, 0.5, 0.8)})
    for number, each in enumerate(climb.rungs.values(), start=1):
        each.result.latencies.histogram.record_value(1, number * 1_000)
    line = fitted(climb, "kafka")["broker"]
    assert line["cpu_us_per_event"] == pytest.approx(3_500, rel=0.1)  # 0.7 cores for 200 events/s
    assert fitted(Climb(), "kafka") == {}
    alike = Climb(rungs={share: rate(0, cores=share, broker="kafka") for share in (0.1, 0.5, 0.8)})
    assert fitted(alike, "kafka") == {}


@pytest.fixture
def climbed(tmp_path: Path) -> RunResult:
    result = run_result(tmp_path, APART)
    for broker, measured in result.sides.items():
        carried = 200.0 if broker == "rabbit" else 100.0
        grew, cores = "the backlog grew from 1 to 99 events", 0.95 if broker == "rabbit" else 0.6
        measured.climb.tries = [rate(carried), rate(2 * carried, grew, cores, broker)]
        measured.climb.rungs = {0.5: rate(50, cores=0.2, broker=broker), 0.85: rate(85, "it grew", 0.9, broker)}
    return result


def test_both_sides_are_loaded_below_the_lower_capacity(climbed: RunResult) -> None:
    assert lower_capacity(climbed.sides) == 100
    climbed.sides["rabbit"].climb.tries.clear()
    assert lower_capacity(climbed.sides) is None


def test_the_report_shows_capacities_and_rungs_and_no_percentile_of_too_few_samples(climbed: RunResult) -> None:
    summary = Summary.model_validate(summarise(climbed, "make compare WORKLOAD=my.yml"))
    rungs = summary.brokers["rabbit"].ladder
    assert rungs is not None
    assert rungs.rungs[0].samples == 1_000
    assert rungs.rungs[0].p99_ms is not None
    assert rungs.rungs[0].p999_ms is None
    grew = "the backlog grew from 1 to 99 events"
    assert words.capacities(summary) == [
        (
            f"RabbitMQ carried 200 orders/s, and not 400 ({grew}); limiter: broker CPU (0.95 cores), "
            "the whole machine 0.96 cores."
        ),
        (
            f"Kafka carried 100 orders/s, and not 200 ({grew}); limiter: none (0.60 cores), "
            "the whole machine 0.61 cores."
        ),
    ]
    assert [each.limiter for each in rungs.tries] == ["none (0.00 cores)", "broker CPU (0.95 cores)"]
    first, second = words.ladder(summary)
    assert first[0] == "50.0 (50%)"
    assert second[1:3] == ["not carried", "not carried"]
    for text in (render_page(summary), render_markdown(summary)):
        assert "RabbitMQ carried 200 orders/s, and not 400" in text
        assert words.LADDER in text
        assert "not carried" in text


def test_a_summary_without_the_limiters_of_the_tries_says_nothing_of_them(climbed: RunResult) -> None:
    document = summarise(climbed, "make compare WORKLOAD=my.yml")
    for one in document["brokers"].values():
        for each in one["ladder"]["tries"]:
            del each["limiter"], each["machine_cores"]
    assert words.capacities(Summary.model_validate(document))[0] == (
        "RabbitMQ carried 200 orders/s, and not 400 (the backlog grew from 1 to 99 events)."
    )


def test_what_cannot_be_told_is_no_number_and_no_bare_none(climbed: RunResult) -> None:
    """A percentile of too few samples says so, and CPU that falls with the rate is no gain."""
    document = summarise(climbed, "make compare WORKLOAD=my.yml")
    ladder = document["brokers"]["rabbit"]["ladder"]
    ladder["fitted"] = {"redis": {"idle_cores": 0.0025, "cpu_us_per_event": -1.8}}
    ladder["rungs"][0] |= {"samples": 499, "p99_ms": None}
    summary = Summary.model_validate(document)
    assert words.ladder(summary)[0][2] == "499 samples"
    assert "redis 0.0025 cores and nothing to be seen per event." in words.capacities(summary)[0]


def test_a_run_without_a_ladder_says_nothing_of_one(tmp_path: Path) -> None:
    summary = Summary.model_validate(summarise(run_result(tmp_path, APART), "make compare"))
    assert words.capacities(summary) == []
    assert words.ladder(summary) == []
    assert "What it carries" not in render_page(summary)


def test_the_lower_capacity_is_known_before_the_first_rung() -> None:
    workload = load_workload(DEFAULT_WORKLOAD).model_copy(update={"ladder": Ladder()})
    kinds = [phase.kind for phase in plan(workload) if phase.kind in {CAPACITY, RUNG}]
    assert kinds == [CAPACITY] * len(BROKERS) + [RUNG] * len(BROKERS) * len(Ladder().shares)
