"""Layers stand beside the whole, decide nothing, and only modes that keep the same order stand together."""

from __future__ import annotations

from pathlib import Path

import pytest

from compare import layers as run_layers
from compare.command_line import DEFAULT_WORKLOAD
from compare.document import Summary
from compare.limiter import layer_limiter
from compare.measured import LayerResult
from compare.report import layers
from compare.report.page import render_page
from compare.report.pull_request import render_markdown
from compare.run import LAYERS, PLANTED, RunResult, plan
from compare.summary import summarise
from deploy.topology import BROKERS
from experiment.figures import Progressed
from experiment.layers import AS_TANDEM, MODES, Ran
from experiment.usage import Details
from experiment.workload import Layers, load_workload
from tests.compare.test_judgement import APART, run_result

EVENTS, TICKS = 1_000, 100


def result(
    layer: str, mode: str | None, per_s: float, *, consumers: int = 1, broker_cores: float = 0.1
) -> LayerResult:
    """One that did 1,000 messages at an even rate, with a client that used 0.9 of a core."""
    seconds = EVENTS / per_s
    progress = tuple(Progressed(n * seconds / TICKS, n * EVENTS // TICKS) for n in range(TICKS + 1))
    ran = Ran(progress, (0.9 * seconds,) * consumers, TICKS)
    groups = (*BROKERS, "postgres", "generator", "other_processes")
    cpu_s = {str(name): broker_cores * seconds if name in BROKERS else 0.0 for name in groups}
    return LayerResult(layer, mode, consumers, ran, cpu_s, seconds, Details())


@pytest.fixture
def layered(tmp_path: Path) -> RunResult:
    run = run_result(tmp_path, APART)
    for broker, measured in run.sides.items():
        own = AS_TANDEM[broker]
        measured.layers = [
            result("publish", own, 5_000),
            *(result("consume", own, per_s) for per_s in (9_000, 8_000, 10_000)),
            result("pipeline", None, 4_000),
            *(
                result("consume", mode.name, 7_000, consumers=count)
                for mode in MODES.values()
                for count in mode.consumers
                if mode.broker == broker and (mode.name, count) != (own, 1)
            ),
        ]
    return run


def test_the_report_shows_the_median_of_each_layer_with_its_limiter_beside_the_whole(layered: RunResult) -> None:
    summary = Summary.model_validate(summarise(layered, "make compare WORKLOAD=my.yml"))
    rows = {title: cells for title, *cells in layers.rows(summary)}
    assert [title.split(",")[0] for title in rows] == [
        "published by the client library alone",
        "consumed by the client library alone",
        "Tandem's pipeline alone",
        "Tandem",
        "Tandem",
    ]
    limiter = "client CPU (0.90 cores)"
    assert rows["consumed by the client library alone, no effect"] == ["9,000", limiter, "9,000", limiter]
    for text in (render_page(summary), render_markdown(summary)):
        assert "published by the client library alone" in text
        assert "12 such ordered queues" in text


def test_a_rate_that_took_too_short_a_time_says_so_where_it_stands(layered: RunResult) -> None:
    layered.workload = layered.workload.model_copy(update={"layers": Layers(events=5_000)})
    layered.sides["kafka"].layers = [result("consume", AS_TANDEM["kafka"], 45_000)]
    summary = Summary.model_validate(summarise(layered, "make compare WORKLOAD=my.yml"))
    rows = {title: cells for title, *cells in layers.rows(summary)}
    consumed = rows["consumed by the client library alone, no effect"]
    assert consumed[0] == "9,000", "half a second and no less"
    assert consumed[2] == "45,000 in 0.1 s"
    assert "0.1" in [row[4] for row in layers.mode_rows(summary)]
    for text in (render_page(summary), render_markdown(summary)):
        assert "in as little as 0.1 s" in text
    layered.workload = layered.workload.model_copy(update={"layers": Layers(events=50_000)})
    assert layers.caveat(Summary.model_validate(summarise(layered, "make compare"))) == ""


def test_modes_that_keep_the_same_in_order_stand_together(layered: RunResult) -> None:
    summary = Summary.model_validate(summarise(layered, "make compare WORKLOAD=my.yml"))
    kept = [row[1] for row in layers.mode_rows(summary)]
    assert kept == sorted(kept)
    assert set(kept) == {"events of a key", "nothing", "the whole stream"}
    consumers = [row[2] for row in layers.mode_rows(summary) if "competing" in row[0]]
    assert consumers == ["1", "2", "4"]


def test_a_broker_that_has_no_more_to_give_limits_a_layer(layered: RunResult) -> None:
    busy = [result("consume", "competing", 7_000, consumers=4, broker_cores=0.95)]
    found = layer_limiter(layered.sides["rabbit"], busy, machine_cores=8)
    assert found is not None
    assert found.name == "broker CPU"


def test_a_layer_that_failed_is_told_and_the_verdict_stays(layered: RunResult) -> None:
    layered.sides["kafka"].layer_failure = "a layer stood still at 3 of 9"
    summary = Summary.model_validate(summarise(layered, "make compare WORKLOAD=my.yml"))
    assert "kafka: the layers are not whole: a layer stood still at 3 of 9." in summary.notes
    assert summary.sound


async def test_a_fault_of_ours_in_a_layer_does_not_cost_the_run(
    layered: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(_round: object) -> None:
        raise ValueError("what it says is no mark")

    monkeypatch.setattr(run_layers._Round, "__init__", lambda *_arguments: None)
    monkeypatch.setattr(run_layers._Round, "run", breaks)
    measured = layered.sides["kafka"]
    await run_layers.run_layers(measured, Layers(), 1)
    assert measured.layer_failure == "ValueError('what it says is no mark')"


def test_a_run_without_layers_says_nothing_of_them(tmp_path: Path) -> None:
    summary = Summary.model_validate(summarise(run_result(tmp_path, APART), "make compare"))
    assert layers.rows(summary) == []
    assert layers.mode_rows(summary) == []
    assert "Layers" not in render_page(summary)


def test_layers_run_when_everything_else_is_over() -> None:
    workload = load_workload(DEFAULT_WORKLOAD).model_copy(update={"layers": Layers(rounds=2)})
    kinds = [phase.kind for phase in plan(workload)]
    assert kinds[-4:] == [LAYERS] * 4
    assert PLANTED in kinds[:-4]
    assert LAYERS not in [phase.kind for phase in plan(load_workload(DEFAULT_WORKLOAD))]


@pytest.mark.parametrize("broker", BROKERS)
def test_modes_are_a_matter_of_the_broker(broker: str) -> None:
    own = [mode for mode in MODES.values() if mode.broker == broker]
    assert {mode.order for mode in own} >= {"by key", "whole stream"}
    assert run_layers.layers_s("rabbit", Layers()) > run_layers.layers_s("kafka", Layers(modes=False))
