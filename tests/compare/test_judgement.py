"""No verdict where there is a reason to doubt it, and a run with a violation has no throughput."""

from __future__ import annotations

import copy
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from compare.command_line import DEFAULT_WORKLOAD
from compare.phases import BacklogResult, MeasuredSide, SteadyResult
from compare.report import print_report
from compare.run import RunResult
from compare.summary import summarise
from deploy.native import BrokerName, Ports, Runtime
from deploy.topology import BROKERS
from experiment.checker import Verdict
from experiment.clock import Clock
from experiment.effects import Databases
from experiment.figures import Latencies, RateFigure
from experiment.ledger import Entry
from experiment.load import LoadReport
from experiment.progress_bar import ProgressBar
from experiment.side import Side
from experiment.usage import OTHERS
from experiment.workload import load_workload

WORKLOAD = load_workload(DEFAULT_WORKLOAD, rounds=2)


def steady(phase: str, latency_s: float) -> SteadyResult:
    latencies = Latencies()
    for _ in range(600):
        latencies.record(latency_s)
    load = LoadReport(operations=600, started_s=1_000, ended_s=1_010)
    return SteadyResult(phase, load, latencies, {OTHERS: 0.1}, 10.0, 0.0)


def backlog(phase: str, per_s: float) -> BacklogResult:
    figure = RateFigure(9_000, 9_000 / per_s, per_s)
    return BacklogResult(
        phase=phase,
        events=10_000,
        waiting=10_000,
        relay=figure,
        drain=figure,
        whole=figure,
        first_effect_s=2.0,
        cpu_s={OTHERS: 0.1},
        cpu_effects=9_000,
        seconds=2.0,
        broker_memory_bytes=2**28,
        clock_drift_s=0.0,
    )


def run_result(tmp_path: Path, rates: dict[BrokerName, tuple[float, float]]) -> RunResult:
    runtime = Runtime(tmp_path, Ports(25_000))
    result = RunResult(WORKLOAD, datetime(2026, 1, 1, tzinfo=UTC), hardware={"cores": 2})
    for broker, (first, second) in rates.items():
        side = Side(broker, runtime, WORKLOAD, Clock(), ProgressBar([]), Databases({}))
        side.verdict = Verdict(acknowledged=10, effects=10)
        result.sides[broker] = MeasuredSide(
            side,
            [steady("steady-1", 10 / first), steady("steady-2", 10 / second)],
            [backlog("backlog-1", first), backlog("backlog-2", second)],
        )
    return result


APART: dict[BrokerName, tuple[float, float]] = {"rabbit": (1_000, 1_100), "kafka": (2_000, 2_200)}


def test_ranges_apart_give_a_verdict_with_its_factor(tmp_path: Path) -> None:
    summary = summarise(run_result(tmp_path, APART), "make compare")
    assert summary["differences"]["effects_per_s"] == "kafka 2.0x higher"
    assert summary["differences"]["p50_ms"].startswith("kafka")
    assert summary["brokers"]["kafka"]["effects_per_s"] == 2_100
    assert summary["brokers"]["kafka"]["range"]["effects_per_s"] == [2_000, 2_200]


def test_overlapping_ranges_give_no_verdict(tmp_path: Path) -> None:
    summary = summarise(run_result(tmp_path, {"rabbit": (1_000, 2_100), "kafka": (2_000, 2_200)}), "make compare")
    assert summary["differences"]["effects_per_s"] == "no verdict: ranges overlap"


def test_one_round_gives_no_verdict(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    result.workload = WORKLOAD.model_copy(update={"rounds": 1})
    assert set(summarise(result, "make compare")["differences"].values()) == {"no verdict: one round"}


def test_a_busy_machine_gives_no_verdict_and_says_so_first(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    for measured in result.sides.values():
        for steady_result in measured.steady:
            steady_result.cpu_s[OTHERS] = 12.0
    summary = summarise(result, "make compare")
    assert set(summary["differences"].values()) == {"no verdict: busy machine"}
    assert summary["notes"][0].startswith("the machine was not calm")


def test_late_sends_give_no_verdict_on_latency_but_one_on_throughput(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    result.sides["kafka"].steady[0].load.late = 60
    summary = summarise(result, "make compare")
    assert summary["differences"]["p99_ms"] == "no verdict: late sends"
    assert summary["differences"]["effects_per_s"] == "kafka 2.0x higher"
    assert any("the load generator or the machine was the limit" in note for note in summary["notes"])


@pytest.mark.parametrize("violated", ["lost", "stuck", "dead_lettered"])
def test_a_side_that_lost_an_event_has_no_figure(tmp_path: Path, violated: str) -> None:
    result = run_result(tmp_path, APART)
    getattr(result.sides["kafka"].verdict, violated).append(
        Entry("steady-1", "order.placed", 1.0, key="k", sequence=1)
    )
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


def test_latency_is_not_quoted_at_saturation(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    result.sides["rabbit"].steady[1].load.overruns = 1
    summary = summarise(result, "make compare")
    assert summary["differences"]["p99_ms"] == "no verdict: saturated"
    assert any("the services did not keep up" in note for note in summary["notes"])
