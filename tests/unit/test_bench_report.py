"""Ratios pair the rates of one round."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.report import Row, compare, print_table, write_summary
from bench.rows import ALONE, BY_HAND, IDLE, LARGER, ORDER_P50, OVERLAPPED, PAIR, TASK_P50, Contender


def _round(tandem: float, by_hand: float, overlapped: float) -> dict[Contender, float]:
    return {
        Contender(LARGER, "kafka"): tandem,
        Contender(BY_HAND, "kafka"): by_hand,
        Contender(OVERLAPPED, "kafka"): overlapped,
    }


def test_ratios_pair_rates_of_the_same_round() -> None:
    by_hand, overlapped = compare([_round(8, 10, 16), _round(400, 800, 8_000), _round(30, 40, 40)])
    assert (by_hand.ratio_min, by_hand.ratio_median, by_hand.ratio_max) == (0.5, 0.75, 0.8)
    assert (overlapped.ratio_min, overlapped.ratio_median, overlapped.ratio_max) == (0.05, 0.5, 0.75)


@pytest.mark.parametrize(("tandem", "holds"), [(84, False), (85, True)])
def test_a_median_under_its_floor_does_not_hold(tandem: float, holds: bool) -> None:
    by_hand = compare([_round(tandem, 100, 1)])[0]
    assert by_hand.limit == 0.85
    assert by_hand.holds is holds


@pytest.mark.parametrize(("median", "holds"), [(0.49, True), (0.5, True), (0.51, False)])
def test_where_lower_is_better_a_median_over_its_limit_does_not_hold(median: float, holds: bool) -> None:
    row = Row("times", "kafka", median, 0.1, 2.0, 0.5, lower_is_better=True, ours_median=7.0, ours_max=None)
    assert row.holds is holds


@pytest.mark.parametrize(("ours", "holds"), [(100.0, True), (100.1, False)])
def test_where_our_own_figure_has_a_limit_it_must_keep_that_too(ours: float, holds: bool) -> None:
    row = Row("times", "kafka", 0.3, 0.1, 2.0, 0.5, lower_is_better=True, ours_median=ours, ours_max=100.0)
    assert row.holds is holds


@pytest.mark.parametrize(("ours_ms", "holds"), [(100, True), (101, False)])
def test_a_latency_holds_as_long_as_it_is_not_higher(ours_ms: float, holds: bool) -> None:
    [row] = compare([{Contender(ORDER_P50, "rabbit"): ours_ms, Contender(TASK_P50, "rabbit"): 100}])
    assert row.lower_is_better
    assert row.holds is holds


def test_a_broker_that_was_not_run_has_no_row() -> None:
    assert {row.broker for row in compare([_round(1, 1, 1)])} == {"kafka"}


def _together(two: float, idle: float) -> Row:
    figures = {PAIR: two, ALONE: 100.0, IDLE: idle}
    [row] = compare([{Contender(name, "kafka"): figure for name, figure in figures.items()}])
    return row


@pytest.mark.parametrize(
    ("two", "idle", "holds", "verdict"),
    [
        (129, 1.0, False, "MISSED"),
        (130, 1.0, True, "holds"),
        (129, 0.99, True, "no core free (1.0 idle)"),
        (80, 0.31, True, "no core free (0.3 idle)"),
        (79, 0.31, False, "MISSED"),
        (130, 0.31, True, "holds"),
    ],
)
def test_two_processes_need_not_be_faster_where_no_core_is_free_which_is_said(
    two: float, idle: float, holds: bool, verdict: str
) -> None:
    row = _together(two, idle)
    assert (row.holds, row.verdict) == (holds, verdict)


def test_what_would_be_asked_with_a_core_free_stays_in_sight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    row = _together(81, 0.31)
    print_table([row], [])
    write_summary(tmp_path / "summary.json", [row], [], {})
    assert "≥ 0.8, with a core free ≥ 1.3 │ no core free (0.3 idle)" in capsys.readouterr().out
    [written] = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert (written["limit"], written["limit_with_core_free"], written["cores_idle"]) == (0.8, 1.3, 0.31)
    assert written["verdict"] == "no core free (0.3 idle)"


def test_the_cores_that_count_are_the_median_of_the_rounds() -> None:
    rounds = [{Contender(PAIR, "kafka"): 1.0, Contender(ALONE, "kafka"): 1.0} for _ in range(3)]
    for of_round, idle in zip(rounds, (0.1, 1.2, 1.4), strict=True):
        of_round[Contender(IDLE, "kafka")] = idle
    [row] = compare(rounds)
    assert (row.cores_idle, row.limit) == (1.2, 1.3)
