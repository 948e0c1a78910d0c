"""A side is warmed up until its median latency stands still, and no longer than the workload allows."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from compare.command_line import DEFAULT_WORKLOAD
from compare.document import Summary
from compare.measured import WarmUpResult
from compare.report.page import render_page
from compare.summary import summarise
from compare.warming import SAMPLES_MIN, goes_on, medians_of, stationary, windows_of
from experiment.ledger import Entry
from experiment.workload import WarmUp, load_workload
from tests.compare.test_judgement import APART, run_result

WORKLOAD = load_workload(DEFAULT_WORKLOAD)


def served(*latencies_s: float | None) -> list[Entry]:
    """An event each half second, served after so long."""
    return [
        Entry("warm-up", "order.placed", at_s, durable_s=None if took_s is None else at_s + took_s)
        for at_s, took_s in zip((100 + n / 2 for n in range(len(latencies_s))), latencies_s, strict=True)
    ]


@pytest.mark.parametrize(
    ("medians", "expected"),
    [
        ([20.0, 19.0], True),
        ([30.0, 20.0], False),  # warming up
        ([20.0, 30.0], False),  # a load that is not carried
        ([90.0, 20.0, 20.0], True),
        ([20.0, inf], False),
        ([inf, inf], False),
        ([20.0], None),
        ([], None),
    ],
)
def test_two_medians_that_are_close_are_stationary(medians: list[float], expected: bool | None) -> None:
    assert stationary(medians) is expected


@pytest.mark.parametrize(
    ("medians", "ran_s", "expected"),
    [([30.0, 20.0], 8, True), ([20.0, 20.0], 8, False), ([40.0, 30.0], 13, False), ([20.0], 8, False)],
)
def test_it_goes_on_while_it_is_not_and_another_window_is_allowed(
    medians: list[float], ran_s: float, expected: bool
) -> None:
    assert goes_on(medians, ran_s, window_s=4, longest_s=16) is expected


def test_what_has_no_effect_and_what_comes_after_the_end_is_in_the_medians() -> None:
    entries = served(0.010, 0.030, 0.020, None, None, 0.010, 0.040)
    assert medians_of(entries, 100, 1.0, 3) == pytest.approx([20, inf, 40])
    assert medians_of([], 100, 1.0, 2) == [inf, inf]


def test_a_window_has_latencies_enough_or_nothing_is_said() -> None:
    window_s, count = windows_of(WORKLOAD)
    assert (window_s, count) == (4, 2)
    slow = WORKLOAD.model_copy(update={"steady": WORKLOAD.steady.at(6)})  # 11 events a second
    window_s, count = windows_of(slow.model_copy(update={"warm_up": WarmUp()}))
    assert count == 2
    assert window_s * slow.steady.events_per_s == pytest.approx(SAMPLES_MIN)
    assert windows_of(slow.model_copy(update={"warm_up": WarmUp(steady_s=1, steady_s_max=1)})) == (1, 1)
    assert windows_of(slow.model_copy(update={"warm_up": WarmUp(steady_s=0)})) == (0, 0)


@pytest.mark.parametrize(
    ("found", "note", "on_the_page"),
    [
        (
            WarmUpResult(16, (30.0, 29.5, 22.0, 31.0), stationary=False),
            "still changed by over 20%",
            "not stationary",
        ),
        (WarmUpResult(1, (30.0,), stationary=None), "was not tried", "too few events"),
        (WarmUpResult(8, (31.0, inf), stationary=False), "31.0, inf", "31, none"),
        (WarmUpResult(8, (30.0, 29.0), stationary=True), None, "30, 29: stationary"),
    ],
)
def test_a_side_that_did_not_become_stationary_is_noted_and_still_compared(
    tmp_path: Path, found: WarmUpResult, note: str | None, on_the_page: str
) -> None:
    result = run_result(tmp_path, APART)
    result.sides["kafka"].warm_up = found
    document = summarise(result, "make compare")
    noted = [each for each in document["notes"] if "warm-up" in each]
    assert [each.split(":")[0] for each in noted] == (["kafka"] if note else [])
    assert note is None or note in noted[0]
    assert document["comparison"]["p50_ms"]["verdict"] == "better"
    assert on_the_page in render_page(Summary.model_validate(document))
