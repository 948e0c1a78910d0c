"""Layers stand beside the whole, decide nothing, and only modes that keep the same order stand together."""

from __future__ import annotations

from pathlib import Path

import pytest

from compare import layers as run_layers
from compare.command_line import DEFAULT_WORKLOAD
from compare.document import Summary
from compare.layers import COPIES_MAX, copies_after
from compare.limiter import layer_limiter
from compare.measured import LayerResult
from compare.report import layers
from compare.report.page import render_page
from compare.report.pull_request import render_markdown
from compare.run import LAYERS, PLANTED, RunResult, plan
from compare.summary import summarise
from deploy.topology import BROKERS
from experiment.figures import Progressed
from experiment.layers import AS_TANDEM, MODES, Mode, Ran
from experiment.usage import Details
from experiment.workload import Layers, load_workload
from tests.compare.test_judgement import APART, run_result

EVENTS, TICKS = 10_000, 100


def result(
    layer: str,
    mode: str | None,
    per_s: float,
    *,
    consumers: int = 1,
    broker_cores: float = 0.1,
    events: int = EVENTS,
) -> LayerResult:
    """One that did so many messages at an even rate, with a client that used 0.9 of a core."""
    seconds = events / per_s
    progress = tuple(Progressed(n * seconds / TICKS, n * events // TICKS) for n in range(TICKS + 1))
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
    layered.sides["rabbit"].layers = [
        result("consume", mode, 17_000) for mode in (AS_TANDEM["rabbit"], "competing")
    ]
    layered.sides["kafka"].layers = [result("consume", AS_TANDEM["kafka"], 90_000)]
    summary = Summary.model_validate(summarise(layered, "make compare WORKLOAD=my.yml"))
    rows = {title: cells for title, *cells in layers.rows(summary)}
    consumed = rows["consumed by the client library alone, no effect"]
    assert consumed[0] == "17,000", "half a second and no less"
    assert consumed[2] == "90,000 in 0.1 s"
    assert "0.1" in [row[4] for row in layers.mode_rows(summary)]
    for text in (render_page(summary), render_markdown(summary)):
        assert "in as little as 0.1 s" in text
    layered.sides["kafka"].layers = [result("consume", AS_TANDEM["kafka"], 90_000, events=10 * EVENTS)]
    assert layers.caveat(Summary.model_validate(summarise(layered, "make compare"))) == ""


def test_where_the_whole_is_faster_than_the_client_library_alone_the_page_says_so(layered: RunResult) -> None:
    layered.sides["kafka"].layers = [result("publish", AS_TANDEM["kafka"], 1, events=10 * EVENTS)]
    summary = Summary.model_validate(summarise(layered, "make compare"))
    said = "On Kafka Tandem is faster than the client library alone"
    for text in (render_page(summary), render_markdown(summary)):
        assert said in text
    layered.sides["kafka"].layers = [result("publish", AS_TANDEM["kafka"], 900_000, events=1_000 * EVENTS)]
    assert said not in layers.caveat(Summary.model_validate(summarise(layered, "make compare")))


def test_a_summary_that_says_not_how_many_a_layer_carried_means_as_many_as_were_asked_for(
    layered: RunResult,
) -> None:
    layered.workload = layered.workload.model_copy(update={"layers": Layers(events=5_000)})
    layered.sides["kafka"].layers = [
        result("consume", AS_TANDEM["kafka"], 45_000, events=carried) for carried in (60_000, 50_000)
    ]
    document = summarise(layered, "make compare WORKLOAD=my.yml")
    [row] = document["brokers"]["kafka"]["layers"]
    assert row["messages"] == 50_000, "the fewest of its rounds"
    assert "1" in [cells[4] for cells in layers.mode_rows(Summary.model_validate(document))]
    del row["messages"]
    assert "0.1" in [cells[4] for cells in layers.mode_rows(Summary.model_validate(document))]


@pytest.mark.parametrize(
    ("copies", "seconds", "next_copies"),
    [
        (1, 0.84, 1),  # long enough
        (4, 0.5, 4),
        (1, 0.09, 9),  # 0.75 s
        (9, 0.45, 15),
        (1, 0.49, 2),  # more, at any rate
        (1, 0.0, COPIES_MAX),  # all in one go
        (2, 0.001, COPIES_MAX),
        (COPIES_MAX, 0.1, COPIES_MAX),  # and there it ends
    ],
)
def test_what_was_over_too_soon_is_carried_several_times_over(
    copies: int, seconds: float, next_copies: int
) -> None:
    assert copies_after(copies, seconds) == next_copies


async def test_a_client_is_run_again_until_it_took_long_enough_and_only_that_counts(
    layered: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10,000 messages at 120,000/s are 0.075 s between 5 % and 95 %, ten times as many 0.75 s."""
    ran: list[tuple[str, int]] = []

    async def runs(
        _round: object, layer: str, mode: Mode | None, consumers: int, commands: list[list[str]], copies: int = 1
    ) -> LayerResult:
        ran.append((layer, copies))
        assert layer != "publish" or commands == [["publish", "partitions-12", "messages", str(copies)]]
        per_s = {"publish": 80_000, "consume": 120_000}[layer]
        return result(layer, mode.name if mode else None, per_s, consumers=consumers, events=copies * EVENTS)

    monkeypatch.setattr(run_layers._Round, "_run", runs)
    measured = layered.sides["kafka"]
    measured.layers = []
    this_round = object.__new__(run_layers._Round)
    this_round._measured, this_round._file = measured, Path("messages")
    for consumers in (1, 2):
        await this_round._run_clients(MODES["partitions-12"], consumers)
    assert ran == [("publish", 1), ("consume", 1)] + [("publish", 10), ("consume", 10)] * 2
    assert [(each.layer, each.consumers, each.ran.messages) for each in measured.layers] == [
        ("publish", 1, 10 * EVENTS),
        ("consume", 1, 10 * EVENTS),
        ("publish", 1, 10 * EVENTS),
        ("consume", 2, 10 * EVENTS),
    ]


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
    assert run_layers.layers_s("rabbit", Layers(), 1) > run_layers.layers_s("kafka", Layers(modes=False), 1)


def test_an_estimate_knows_that_what_is_short_is_carried_several_times_over() -> None:
    asked = Layers(events=20_000, modes=False)
    first_s, second_s = (run_layers.layers_s("kafka", asked, number) for number in (1, 2))
    assert second_s == pytest.approx(9 * 20_000 / 40_000 + 9 * 20_000 / 200_000 + 20_000 / 15_000 + 3 * 1.5)
    assert first_s == pytest.approx(second_s + 20_000 / 40_000 + 20_000 / 200_000 + 2 * 1.5)
    assert run_layers.layers_s("rabbit", asked, 1) == run_layers.layers_s("rabbit", asked, 2)
