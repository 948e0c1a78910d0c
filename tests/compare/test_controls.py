"""A control passes when all that was planted is found, and nothing else; one that fails leaves no verdict."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from compare import run
from compare.command_line import DEFAULT_WORKLOAD
from compare.controls import Control, judge_controls
from compare.controls.gates import FOUND_ON_THE_WIRE, PAIRS_MIN
from compare.document import Summary
from compare.ending import exit_code
from compare.judgement import FIGURES, against_itself
from compare.measured import AGAIN, MeasuredSide
from compare.report import words
from compare.report.page import render_page
from compare.report.pull_request import render_markdown
from compare.run import RunResult
from compare.statistics import Claim, Estimate
from compare.statistics.verdicts import Said
from compare.summary import summarise
from experiment.stamping.planted import WIRE, Planted, Plants, planted
from experiment.workload import load_workload
from shared.broker import Message
from tests.compare.test_judgement import APART, ROUNDS, backlog, run_result, steady

FULL = load_workload(DEFAULT_WORKLOAD.with_name("full.yml"), rounds=ROUNDS)
Spoil = Callable[[MeasuredSide], None]


def full_run(tmp_path: Path) -> RunResult:
    """Of which every control passes: noise of 2 %, a delay of 5 ms, four fifths of the speed."""
    noise = random.Random(7)
    result = run_result(tmp_path, APART)
    result.workload = FULL
    for measured in result.sides.values():
        controls = measured.controls
        controls.delays_s = [0.0051, 0.0052, 0.006]
        for number, plain in enumerate(measured.steady, start=1):
            p50_s = (plain.latencies.percentile_ms(50) or 0) / 1_000
            controls.repeated[number] = steady(f"repeated-{number}", p50_s * noise.uniform(0.98, 1.02), {})
            if number % 2 == (measured.side.broker == "kafka"):
                delayed_s = p50_s + 0.005 + noise.uniform(0, 0.001)
                controls.delayed[number] = steady(f"delayed-{number}", delayed_s, {})
                speed = (measured.backlogs[number - 1].drain.per_s or 0) * noise.uniform(0.79, 0.83)
                controls.slowed[number] = backlog(f"slowed-{number}", speed, {})
    return result


def found(result: RunResult) -> dict[str, Control]:
    rows = judge_controls(result.sides, result.workload)
    return {control.name + (f" {control.broker}" if control.broker else ""): control for control in rows}


def test_what_was_planted_is_found_and_a_broker_does_not_differ_from_itself(tmp_path: Path) -> None:
    result = full_run(tmp_path)
    controls = found(result)
    assert set(controls) == {"A/A rabbit", "A/A kafka", "delay", "slowdown", "wire rabbit", "wire kafka"}
    assert [name for name, control in controls.items() if not control.passed] == []
    assert "p50 equivalent (" in controls["A/A rabbit"].found
    summary = summarise(result, "make compare FULL=1")
    assert summary["comparison"]["p50_ms"]["winner"] == "kafka"
    assert 1 < summary["comparison"]["p50_ms"]["resolution"] < 1.05


def differs_from_itself(measured: MeasuredSide) -> None:
    for number, plain in measured.controls.repeated.items():
        slower_s = (plain.latencies.percentile_ms(50) or 0) / 1_000 * (1.4 if number % 2 else 1 / 1.4)
        measured.controls.repeated[number] = steady(plain.phase, slower_s, {})


def delayed_by(milliseconds: float) -> Spoil:
    def spoil(measured: MeasuredSide) -> None:
        for number in measured.controls.delayed:
            p50_s = (measured.steady[number - 1].latencies.percentile_ms(50) or 0) / 1_000
            late_s = p50_s + (milliseconds + 0.05 * number) / 1_000
            measured.controls.delayed[number] = steady(f"delayed-{number}", late_s, {})

    return spoil


def test_rounds_that_were_run_again_are_compared_with_their_controls_too(tmp_path: Path) -> None:
    result = full_run(tmp_path)
    for measured in result.sides.values():
        measured.backlogs = [replace(each, phase=f"{each.phase}{AGAIN}") for each in measured.backlogs]
    assert found(result)["slowdown"].passed


def slowed_to(share: float) -> Spoil:
    def spoil(measured: MeasuredSide) -> None:
        for number in measured.controls.slowed:
            speed = (measured.backlogs[number - 1].drain.per_s or 0) * (share + 0.001 * number)
            measured.controls.slowed[number] = backlog(f"slowed-{number}", speed, {})

    return spoil


def nothing_took_place(measured: MeasuredSide) -> None:
    measured.controls.wire = None


@pytest.mark.parametrize(
    ("spoil", "failed"),
    [
        (differs_from_itself, {"A/A rabbit", "A/A kafka"}),
        (delayed_by(0), {"delay"}),
        (delayed_by(9), {"delay"}),
        (slowed_to(0.99), {"slowdown"}),
        (slowed_to(0.6), {"slowdown"}),
        (nothing_took_place, {"wire rabbit", "wire kafka"}),
        (lambda measured: measured.controls.repeated.clear(), {"A/A rabbit", "A/A kafka"}),
        (lambda measured: measured.controls.delayed.clear(), {"delay"}),
        (lambda measured: measured.controls.slowed.clear(), {"slowdown"}),
    ],
)
def test_a_control_that_fails_leaves_no_verdict_and_is_named(
    tmp_path: Path, spoil: Spoil, failed: set[str]
) -> None:
    result = full_run(tmp_path)
    for measured in result.sides.values():
        spoil(measured)
    assert {name for name, control in found(result).items() if not control.passed} == failed
    summary = summarise(result, "make compare FULL=1")
    for row in summary["comparison"].values():
        assert row["verdict"] == "none"
        assert row["sentence"].startswith("no verdict: control failed: ")
    assert failed == {
        name.replace(" on", "") for name in summary["differences"]["p50_ms"].partition("failed: ")[2].split(", ")
    }
    assert sum("the control" in note and "failed" in note for note in summary["notes"]) == len(failed)
    shown = [row for row in words.controls(Summary.model_validate(summary)) if row[-1] == "FAILED"]
    assert len(shown) == len(failed)


@pytest.mark.parametrize("kind", sorted(FOUND_ON_THE_WIRE))
def test_a_violation_that_is_not_counted_or_counted_twice_fails_the_control(tmp_path: Path, kind: str) -> None:
    result = run_result(tmp_path, APART)
    for count in (0, 2):
        wire = {name: each for name, each in {**FOUND_ON_THE_WIRE, kind: count}.items() if each}
        result.sides["kafka"].controls.wire = wire
        assert [name for name, control in found(result).items() if not control.passed] == ["wire kafka"]


def test_a_finding_that_nobody_planted_fails_the_control(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    result.sides["rabbit"].controls.wire = {**FOUND_ON_THE_WIRE, "stuck": 1}
    assert not found(result)["wire rabbit"].passed


def test_a_difference_that_a_broker_has_from_itself_is_none(tmp_path: Path) -> None:
    """Its repetitions scatter, so that the interval is wide, and nothing is claimed of them."""
    result = full_run(tmp_path)
    for measured in result.sides.values():
        for number, plain in measured.controls.repeated.items():
            factor = 3 if number in {1, 2, 5, 6} else 1 / 3  # as often up as down, in odd rounds and in even ones
            scattered_s = (plain.latencies.percentile_ms(50) or 0) / 1_000 * factor
            measured.controls.repeated[number] = steady(plain.phase, scattered_s, {})
    assert found(result)["A/A rabbit"].passed
    row = summarise(result, "make compare FULL=1")["comparison"]["p50_ms"]
    assert row["ratio"] == pytest.approx(0.5, rel=0.01)
    assert (row["verdict"], row["winner"]) == ("inconclusive", None)
    assert row["resolution"] > 2
    assert row["sentence"].startswith("inconclusive: kafka -50% to -50%; a broker differs from itself by up to ")


@pytest.mark.parametrize(
    ("interval", "verdict", "added"),
    [
        ((0.84, 0.91), "better", "; a broker differs from itself by up to 10%"),
        ((1.21, 1.55), "inconclusive", ""),
        ((1.10, 1.55), "inconclusive", "; a broker differs from itself by up to 11%"),
        ((0.84, 0.89), "better", ""),
        ((0.95, 1.3), "inconclusive", ""),
        ((0.95, 1.05), "equivalent", ""),
    ],
)
def test_where_a_difference_may_be_no_larger_than_that_of_a_broker_from_itself_the_sentence_says_so(
    interval: tuple[float, float], verdict: Said, added: str
) -> None:
    seen = Estimate(10, 0.87, *interval, 0.95, 0.004)
    assert against_itself(seen, Claim(verdict, 0.008, ""), 1.11, FIGURES["p50_ms"]) == added
    assert against_itself(seen, Claim(verdict, 0.008, ""), None, FIGURES["p50_ms"]) == ""


def test_the_repetitions_of_both_brokers_are_compared_too_and_decide_nothing(tmp_path: Path) -> None:
    result = full_run(tmp_path)
    summary = Summary.model_validate(summarise(result, "make compare FULL=1"))
    said = "the repeated loads of A/A, kafka to rabbit, of which no verdict is taken: p50 0.50 (0."
    assert [note for note in summary.notes if note.startswith(said)]
    for text in (render_page(summary), render_markdown(summary)):
        assert said in text
        assert words.OF_A_A in text
    for number in (1, 2, 3):
        del result.sides["kafka"].controls.repeated[number]
    assert not any("repeated loads" in note for note in summarise(result, "make compare")["notes"])


def test_seven_rounds_control_nothing(tmp_path: Path) -> None:
    result = full_run(tmp_path)
    for measured in result.sides.values():
        measured.controls.delayed.pop(max(measured.controls.delayed))
    assert found(result)["delay"].found == f"{ROUNDS - 2} of {PAIRS_MIN} rounds"


def test_what_is_compared_with_itself_comes_first_in_every_other_round() -> None:
    phases = run.plan(FULL.model_copy(update={"rounds": 2}))
    kinds = [(phase.round_number, phase.kind) for phase in phases if phase.round_number]
    first, second = ([kind for number, kind in kinds if number == each] for each in (1, 2))
    assert first.index(run.STEADY) < first.index(run.REPEATED) < first.index(run.DELAYED)
    assert second.index(run.DELAYED) < second.index(run.REPEATED) < second.index(run.STEADY)
    assert first.index(run.BACKLOG) < first.index(run.SLOWED)
    assert second.index(run.SLOWED) < second.index(run.BACKLOG)
    delayed = [phase.broker for phase in phases if phase.kind == run.DELAYED]
    assert Counter(delayed) == {"rabbit": 1, "kafka": 1}
    with_consumers = [phase.kind for phase in phases if phase.kind != run.LAYERS]
    assert with_consumers[-2:] == [run.PLANTED] * 2, "the consumers are stopped by it"
    quick = run.plan(load_workload(DEFAULT_WORKLOAD))
    assert not {run.REPEATED, run.DELAYED, run.SLOWED} & {phase.kind for phase in quick}


def message(key: str, number: int) -> Message:
    body = {"id": f"{key}{number}", "source": "any", "data": {"total_amount": 7_500}}
    return Message("order", "order.placed", key, orjson.dumps(body))


BATCH = [message("pair", 1), *(message(key, 1) for key in "abcd"), message("pair", 2)]


def test_each_fault_is_planted_once_on_an_event_of_its_own(tmp_path: Path) -> None:
    plants = Plants(tmp_path)
    assert plants.tampered(BATCH) == BATCH, "nothing is planted unasked"
    with planted(tmp_path, Planted(wire=tuple(WIRE))):
        changed = plants.tampered(BATCH)
        assert [each.key for each in changed] == ["pair", "b", "c", "d", "pair", "b", "c"]
        assert [changed[0], changed[4]] == [BATCH[-1], BATCH[0]], "the later one comes first"
        assert orjson.loads(changed[5].body)["id"] != "b1", "the same change under another id"
        assert changed[6] == changed[2] == BATCH[3], "delivered again"
        assert orjson.loads(changed[3].body)["data"] == {"total_amount": 1}
        assert plants.tampered(BATCH) == BATCH, "once"
    assert plants.now() == Planted()


def test_what_finds_no_event_waits_for_the_next_batch(tmp_path: Path) -> None:
    plants = Plants(tmp_path)
    with planted(tmp_path, Planted(wire=("reordered",))):
        assert plants.tampered(BATCH[:4]) == BATCH[:4]
        assert plants.tampered(BATCH) != BATCH


def test_a_delay_and_a_slowdown_are_as_asked_while_they_are_asked_for(tmp_path: Path) -> None:
    plants = Plants(tmp_path)
    asked = Planted(delay_s=0.005)
    with planted(tmp_path, asked):
        assert plants.now() == asked
    with planted(tmp_path, replace(asked, slowdown=0.25)):
        assert plants.now().slowdown == 0.25
    assert plants.now() == Planted()


@pytest.mark.parametrize(("is_sound", "passed", "code"), [(True, True, 0), (True, False, 1), (False, True, 1)])
def test_a_run_with_a_failed_control_exits_with_1(is_sound: bool, passed: bool, code: int) -> None:
    assert exit_code(sound=is_sound, controls=[{"passed": True}, {"passed": passed}]) == code
