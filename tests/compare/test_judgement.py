"""No verdict where there is a reason to doubt it, and a run with a violation has no throughput."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from compare import run
from compare.changes import changes
from compare.command_line import DEFAULT_WORKLOAD
from compare.controls.gates import FOUND_ON_THE_WIRE
from compare.document import Summary, read_summary
from compare.measured import BacklogResult, ControlPhases, MeasuredSide, SteadyResult
from compare.report import print_report, words, write_report
from compare.report.page import render_page
from compare.report.pull_request import render_markdown
from compare.run import RunResult
from compare.summary import summarise
from deploy.native import BrokerName, Ports, Runtime
from deploy.topology import BROKERS
from experiment.checker import Effect, Verdict
from experiment.clock import Clock
from experiment.effects import Databases
from experiment.facts import unequal
from experiment.figures import Latencies, RateFigure
from experiment.ledger import Entry
from experiment.load import LoadReport
from experiment.profiles import PROFILES, Profile
from experiment.progress_bar import ProgressBar
from experiment.side import Side
from experiment.usage import OTHERS, STOLEN, Details, Usage
from experiment.workload import load_workload
from shared.settings import Settings

ROUNDS = 8
WORKLOAD = load_workload(DEFAULT_WORKLOAD, rounds=ROUNDS).model_copy(
    update={"primary": ("effects_per_s", "relay_events_per_s", "p50_ms", "p99_ms")}
)
BUSY_S, IDLE_S = 8.0, 0.5
"""CPU seconds of a broker in a phase of ten seconds."""


def steady(phase: str, latency_s: float, cpu_s: dict[str, float]) -> SteadyResult:
    latencies = Latencies()
    latencies.histogram.record_value(round(latency_s * 1e6), 1_000)
    load = LoadReport(operations=1_000, started_s=1_000, ended_s=1_010)
    return SteadyResult(phase, load, latencies, {OTHERS: 0.1, **cpu_s}, 10.0, 0.0)


def backlog(phase: str, per_s: float, cpu_s: dict[str, float]) -> BacklogResult:
    figure = RateFigure(9_000, 9_000 / per_s, per_s)
    return BacklogResult(
        phase=phase,
        events=10_000,
        waiting=10_000,
        relay=figure,
        relay_cpu_s={OTHERS: 0.1, **cpu_s},
        relay_seconds=10.0,
        drain=figure,
        whole=figure,
        first_effect_s=2.0,
        cpu_s={OTHERS: 0.1, **cpu_s},
        cpu_effects=9_000,
        seconds=10.0,
        broker_memory_bytes=2**28,
        clock_drift_s=0.0,
    )


def run_result(tmp_path: Path, rates: dict[BrokerName, tuple[float, ...]], broker_s: float = BUSY_S) -> RunResult:
    runtime = Runtime(tmp_path, Ports(25_000))
    result = RunResult(WORKLOAD, datetime(2026, 1, 1, tzinfo=UTC), hardware={"cores": 2})
    result.settings = {"unequal": ["one thing", "another"], "profile": str(PROFILES[WORKLOAD.profile])}
    for broker, per_round in rates.items():
        side = Side(broker, runtime, WORKLOAD, Clock(), ProgressBar([]), Databases({}))
        side.verdict = Verdict(acknowledged=10, effects=10)
        cpu_s: dict[str, float] = {broker: broker_s}
        result.sides[broker] = MeasuredSide(
            side,
            [steady(f"steady-{number}", 10 / rate, cpu_s) for number, rate in enumerate(per_round, start=1)],
            [backlog(f"backlog-{number}", rate, cpu_s) for number, rate in enumerate(per_round, start=1)],
            controls=ControlPhases(wire=dict(FOUND_ON_THE_WIRE)),
        )
    return result


APART: dict[BrokerName, tuple[float, ...]] = {
    "rabbit": (1_000, 1_000, 1_000, 1_000, 1_100, 1_100, 1_100, 1_100),
    "kafka": (2_000, 2_000, 2_000, 2_000, 2_200, 2_200, 2_200, 2_200),
}


_RATES = (1_000.0, 1_010.0, 990.0, 1_005.0, 1_020.0, 985.0, 1_000.0, 1_015.0)
ALIKE: dict[BrokerName, tuple[float, ...]] = {"rabbit": _RATES, "kafka": tuple(reversed(_RATES))}
FASTER = "kafka higher by 100% (100% to 100%)"
QUICKER = "kafka lower by 50% (50% to 50%)"


def test_who_is_better_is_named_with_by_how_much(tmp_path: Path) -> None:
    summary = summarise(run_result(tmp_path, APART), "make compare")
    assert summary["differences"] == {
        "effects_per_s": FASTER,
        "relay_events_per_s": FASTER,
        "p50_ms": QUICKER,
        "p99_ms": QUICKER,
    }
    drained = summary["comparison"]["effects_per_s"]
    assert (drained["verdict"], drained["winner"], drained["limiter"]) == ("better", "kafka", "broker CPU")
    assert (drained["ratio"], drained["interval"], drained["pairs"]) == (2, [2, 2], ROUNDS)
    assert drained["p_holm"] == pytest.approx(4 * 2 / 2**ROUNDS, rel=1e-3)
    assert summary["brokers"]["kafka"]["effects_per_s"] == 2_100
    assert summary["brokers"]["kafka"]["range"]["effects_per_s"] == [2_000, 2_200]


def test_pairs_decide_and_not_ranges(tmp_path: Path) -> None:
    """The machine became slower from round to round, for both: their ranges overlap, and one leads in each."""
    slower = [2_000 - 150 * number for number in range(ROUNDS)]
    drifting: dict[BrokerName, tuple[float, ...]] = {
        "rabbit": tuple(slower),
        "kafka": tuple(1.25 * rate for rate in slower),
    }
    summary = summarise(run_result(tmp_path, drifting), "make compare")
    assert summary["differences"]["effects_per_s"] == "kafka higher by 25% (25% to 25%)"


def test_a_broker_against_itself_is_equivalent(tmp_path: Path) -> None:
    summary = summarise(run_result(tmp_path, ALIKE), "make compare")
    assert {row["verdict"] for row in summary["comparison"].values()} == {"equivalent"}


def test_rounds_that_disagree_are_inconclusive_and_show_what_they_leave_open(tmp_path: Path) -> None:
    mixed = {**APART, "rabbit": (*APART["rabbit"][:6], 3_300, 4_400)}
    summary = summarise(run_result(tmp_path, mixed), "make compare")
    assert summary["differences"]["effects_per_s"].startswith("inconclusive: kafka -")
    assert summary["comparison"]["effects_per_s"]["winner"] is None


@pytest.mark.parametrize("rounds", range(1, ROUNDS))
def test_too_few_rounds_give_no_verdict(tmp_path: Path, rounds: int) -> None:
    result = run_result(tmp_path, {broker: per_round[:rounds] for broker, per_round in APART.items()})
    result.workload = WORKLOAD.model_copy(update={"rounds": rounds})
    summary = summarise(result, "make compare")
    assert set(summary["differences"].values()) == {f"no verdict: {rounds} of 8 rounds"}
    assert f"{rounds} round(s) are a first impression" in summary["notes"][-1]


def test_only_what_was_named_beforehand_is_decided_and_six_rounds_are_enough_for_one(tmp_path: Path) -> None:
    result = run_result(tmp_path, {broker: per_round[:6] for broker, per_round in APART.items()})
    result.workload = WORKLOAD.model_copy(update={"rounds": 6, "primary": ("p50_ms",)})
    for measured in result.sides.values():
        del measured.backlogs[1:]
    said = summarise(result, "make compare")["differences"]
    assert said["p50_ms"] == QUICKER
    assert said["p99_ms"] == said["effects_per_s"] == "no verdict: not named beforehand"


def test_a_percentile_of_few_samples_decides_nothing(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    short = Latencies()
    rounds = result.sides["rabbit"].steady
    rounds[0] = replace(rounds[0], latencies=short)
    for _ in range(999):
        short.record(0.01)
    said = summarise(result, "make compare")["differences"]
    assert said["p99_ms"] == "no verdict: 999 of 1,000 samples"
    assert said["p50_ms"] == QUICKER


def test_where_neither_broker_is_near_its_limit_it_is_said_that_the_clients_are_measured(tmp_path: Path) -> None:
    summary = summarise(run_result(tmp_path, APART, broker_s=IDLE_S), "make compare")
    assert all(said.endswith(", through these Python clients") for said in summary["differences"].values())
    assert {row["limiter"] for row in summary["comparison"].values()} == {"none"}
    limited = [note for note in summary["notes"] if "not limited by a broker" in note]
    assert [note.split(" not limited")[0] for note in limited] == [
        "the drain was", "the way from the outbox to the broker was", "the latencies were"
    ]  # fmt: skip
    assert "rabbit by nothing that was used up (its busiest part: 0.05 cores), kafka by nothing" in limited[0]


def test_all_that_is_unequal_is_said_first(tmp_path: Path) -> None:
    notes = summarise(run_result(tmp_path, APART), "make compare")["notes"]
    assert notes[0].endswith("unequal besides: (1) one thing; (2) another.")


@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
def test_what_is_unequal_is_read_from_the_options_in_use(profile: Profile) -> None:
    told: dict[str, Any] = {
        name.removeprefix("TANDEM_").lower(): value for name, value in profile.services.items()
    }
    settings = Settings(
        broker="kafka",
        http_port=1,
        postgres_dsn="postgresql://-",
        redis_url="redis://-",
        kafka_bootstrap="-:1",
        **told,
    )
    said = "\n".join(unequal(settings, profile))
    for expected in ("since the last answer", "256 KiB", "12 partitions", "1,000 messages", "4 to 12 MiB"):
        assert expected in said
    for difference in ("synced to disk", "compresses (lz4)"):
        assert (difference in said) == (not profile.equal)


def test_a_run_that_was_cut_short_shows_what_it_measured_and_says_so_everywhere(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    result.cut_short = "RabbitMQ has not answered for 30 s"
    assert not result.sound
    document = summarise(result, "make compare")
    assert set(document["differences"].values()) == {"no verdict: cut short"}
    assert document["controls"] == []
    summary = Summary.model_validate(document)
    assert not summary.sound
    assert words.counts(summary) == [("all events", ["not checked", "not checked"])]
    printed = io.StringIO()
    print_report(document, tmp_path, Console(file=printed, width=120))
    for text in (render_page(summary), render_markdown(summary), printed.getvalue()):
        assert "cut short: RabbitMQ has not answered for 30 s" in text
        assert "not checked" in text
    whole = Summary.model_validate(summarise(run_result(tmp_path, APART), "make compare"))
    assert changes(summary, whole, "reports/x").refused == "a run was cut short"


def test_one_disturbed_phase_among_calm_ones_leaves_no_verdict(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    result.sides["kafka"].steady[3].cpu_s[OTHERS] = 2.1  # of 10 s on 2 cores
    summary = summarise(result, "make compare")
    assert set(summary["differences"].values()) == {"no verdict: busy machine"}


def test_a_pair_of_phases_that_was_disturbed_does_not_count_and_is_listed(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    assert not run.put_aside_if_disturbed(run.STEADY, result)
    result.sides["kafka"].steady[-1].cpu_s[OTHERS] = 2.1
    assert run.put_aside_if_disturbed(run.STEADY, result)
    for measured in result.sides.values():
        assert [void.phase for void in measured.void] == ["steady-8"]
        assert measured.steady[-1].phase == "steady-7"
    summary = summarise(result, "make compare")
    assert summary["brokers"]["rabbit"]["void_rounds"] == ["steady-8"]
    assert sum("void, and run again on both brokers" in note for note in summary["notes"]) == 1


@pytest.mark.parametrize(
    ("profile", "why"), [("as-usual", "unequal promises"), ("replicated", "nodes on one machine")]
)
def test_a_profile_that_proves_nothing_about_brokers_decides_nothing(
    tmp_path: Path, profile: str, why: str
) -> None:
    result = run_result(tmp_path, APART)
    result.workload = result.workload.model_copy(update={"profile": profile})
    said = summarise(result, f"make compare PROFILE={profile}")["differences"]
    assert set(said.values()) == {f"no verdict: {why}"}


def test_a_busy_machine_gives_no_verdict_and_says_so_first(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    for measured in result.sides.values():
        for steady_result in measured.steady:
            steady_result.cpu_s[OTHERS] = 12.0
    summary = summarise(result, "make compare")
    assert set(summary["differences"].values()) == {"no verdict: busy machine"}
    assert summary["notes"][1].startswith("the machine was not calm")
    assert "steal) was 0%" in summary["notes"][1]


def test_time_that_the_hypervisor_gave_to_others_leaves_no_verdict_and_is_named(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    for measured in result.sides.values():
        for cpu_s in (each.cpu_s for results in (measured.steady, measured.backlogs) for each in results):
            cpu_s[STOLEN] = 6.0  # of 10 s on 2 cores
    summary = summarise(result, "make compare")
    assert set(summary["differences"].values()) == {"no verdict: busy machine"}
    assert "steal) was 30%" in summary["notes"][1]


def test_what_was_stolen_is_no_other_programs() -> None:
    earlier = Usage(0.0, {"rabbit": 1.0}, 10.0, 0, Details(), stolen_s=2.0)
    later = Usage(10.0, {"rabbit": 2.0}, 16.0, 0, Details(), stolen_s=5.0)
    assert later.since(earlier) == {"rabbit": 1.0, STOLEN: 3.0, OTHERS: 2.0}


def test_late_sends_give_no_verdict_on_latency_but_one_on_throughput(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    result.sides["kafka"].steady[0].load.late = 60
    summary = summarise(result, "make compare")
    assert summary["differences"]["p99_ms"] == "no verdict: late sends"
    assert summary["differences"]["effects_per_s"] == FASTER
    assert any("the load generator or the machine was the limit" in note for note in summary["notes"])


@pytest.mark.parametrize(
    ("median_s", "lag_s", "late"),
    [(0.010, 0.002, False), (0.010, 0.004, True), (0.100, 0.004, False), (0.100, 0.012, True)],
)
def test_how_late_a_generator_may_be_depends_on_the_latency(
    tmp_path: Path, median_s: float, lag_s: float, late: bool
) -> None:
    result = run_result(tmp_path, APART)
    for each in result.sides["kafka"].steady:
        each.latencies.histogram.record_value(round(median_s * 1e6), 5_000)
        for _ in range(100):
            each.load.send_lag.record(lag_s)
    summary = summarise(result, "make compare")
    assert (summary["differences"]["p50_ms"] == "no verdict: late sends") is late
    assert any("kafka: the load generator was late" in note for note in summary["notes"]) is late


def test_a_difference_that_grows_in_the_course_of_the_run_is_not_decided_by_its_length(tmp_path: Path) -> None:
    growing = tuple(2_000.0 + 100 * number for number in range(ROUNDS))
    result = run_result(tmp_path, {"rabbit": (1_000.0,) * ROUNDS, "kafka": growing})
    summary = summarise(result, "make compare")
    assert set(summary["differences"].values()) == {"no verdict: not stationary"}
    (note,) = [each for each in summary["notes"] if "effects/s changed" in each]
    assert note.startswith("kafka: effects/s changed by +35% from the first round to the last")


def test_a_drift_of_both_sides_is_noted_and_decides_nothing(tmp_path: Path) -> None:
    slower = tuple(2_000.0 - 150 * number for number in range(ROUNDS))
    result = run_result(tmp_path, {"rabbit": slower, "kafka": tuple(2 * rate for rate in slower)})
    summary = summarise(result, "make compare")
    assert summary["differences"]["p50_ms"] == QUICKER
    drifts = [note.split(" changed")[0] for note in summary["notes"] if "from the first round to the last" in note]
    assert {"rabbit: p50", "kafka: p50"} <= set(drifts)


def test_requests_without_effect_are_among_the_latencies_and_leave_no_verdict_on_them(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    before = summarise(result, "make compare")["brokers"]["kafka"]["p99_ms"]
    for steady_result in result.sides["kafka"].steady:
        for _ in range(20):
            steady_result.latencies.record_endless(10.0)
    summary = summarise(result, "make compare")
    assert before < 100
    assert summary["brokers"]["kafka"]["p99_ms"] == pytest.approx(10_000, rel=1e-3)
    assert summary["brokers"]["kafka"]["latency"]["without_effect"] == 160
    assert summary["differences"]["p99_ms"] == "no verdict: failed requests"
    assert summary["differences"]["effects_per_s"] == FASTER
    assert any("had no effect" in note for note in summary["notes"])


@pytest.mark.parametrize("violated", ["lost", "stuck", "dead_lettered", "reordered"])
def test_a_side_that_lost_an_event_or_its_order_has_no_figure(tmp_path: Path, violated: str) -> None:
    result = run_result(tmp_path, APART)
    entry = Entry("steady-1", "order.placed", 1.0, key="k", sequence=1)
    found = Effect(1, "e", "order.placed", "k", 1, 2.0) if violated == "reordered" else entry
    getattr(result.sides["kafka"].verdict, violated).append(found)
    assert not result.sound
    summary = summarise(result, "make compare")
    for name in ("effects_per_s", "relay_events_per_s", "p50_ms", "p99_ms"):
        assert summary["brokers"]["kafka"][name] is None
        assert summary["brokers"]["kafka"]["range"][name] == [None, None]
        assert summary["brokers"]["rabbit"][name] is not None
        assert summary["differences"][name] == "no verdict: no figure"
    assert set(summary["brokers"]["kafka"]["cost"].values()) == {None}


def test_the_table_shows_both_columns_and_marks_a_violation(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    result.sides["kafka"].verdict.lost.append(Entry("steady-1", "order.placed", 1.0, key="k", sequence=1))
    summary = summarise(result, "make compare")
    written = io.StringIO()
    print_report(copy.deepcopy(summary), Path("reports/latest"), Console(file=written, highlight=False))
    text = written.getvalue()
    for expected in ("RabbitMQ", "Kafka", "1,050", "none", "kafka lost: order.placed k 1", "make compare"):
        assert expected in text
    assert set(summary["brokers"]) == set(BROKERS)


@pytest.mark.parametrize("rounds", [1, ROUNDS])
def test_a_run_becomes_a_directory_of_files_that_can_be_read_again(tmp_path: Path, rounds: int) -> None:
    result = run_result(tmp_path, {broker: per_round[:rounds] for broker, per_round in APART.items()})
    result.workload = WORKLOAD.model_copy(update={"rounds": rounds})
    summary = summarise(result, "make compare")
    write_report(tmp_path / "out", result, summary)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "summary.json", "report.html", "report.md", "ledger.jsonl.gz", "latencies.hlog"
    }  # fmt: skip
    assert read_summary(tmp_path / "out").differences == summary["differences"]
    said = "Tandem on Kafka higher by 100%" if rounds == ROUNDS else "No verdict: 1 of 8 rounds."
    assert said in (tmp_path / "out" / "report.html").read_text()


def test_latency_is_not_quoted_at_saturation(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    result.sides["rabbit"].steady[1].load.overruns = 1
    summary = summarise(result, "make compare")
    assert summary["differences"]["p99_ms"] == "no verdict: saturated"
    assert any("the services did not keep up" in note for note in summary["notes"])
