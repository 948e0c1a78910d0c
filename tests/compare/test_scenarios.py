"""Scenarios tell what happened under the steady load, and decide nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
import yaml

from compare.command_line import DEFAULT_WORKLOAD
from compare.document import Summary
from compare.measured import ScenarioResult
from compare.report import scenarios
from compare.report.page import render_page
from compare.report.pull_request import render_markdown
from compare.run import CHECK, RunResult, plan
from compare.scenarios import figures
from compare.summary import summarise
from deploy.topology import BROKERS
from experiment.beside import Told
from experiment.stamping import Planted, planted
from experiment.stamping.planted import Plants
from experiment.workload import WorkloadError, load_workload
from services.order.events import OrderPlaced
from shared.broker import Message
from shared.envelope import Envelope
from tests.compare.test_judgement import APART, run_result, steady

KINDS = [
    "bursts",
    "past-http",
    "live-drain",
    "slow-consumer",
    "poison",
    "killed-consumer",
    "request-reply",
    "jobs",
    "fan-out",
]


@pytest.fixture
def played(tmp_path: Path) -> RunResult:
    run = run_result(tmp_path, APART)
    for measured in run.sides.values():
        for drained_s in (3.0, 5.0, 4.0):
            result = steady("live-drain", 0.02, {})
            measured.scenarios.append(
                ScenarioResult("live-drain", result, {"drained_s": drained_s}, (20.0, None, 900.0))
            )
    return run


def test_the_report_tells_latency_and_the_median_of_what_was_found(played: RunResult) -> None:
    summary = Summary.model_validate(summarise(played, "make compare WORKLOAD=my.yml"))
    (row,) = scenarios.rows(summary)
    assert row[0] == "a backlog drained beside it"
    assert row[4] == "backlog drained in 4 s"
    for text in (render_page(summary), render_markdown(summary)):
        assert "backlog drained in 4 s" in text
    assert "Highest latency of what was due in each second, ms: a backlog drained beside it" in render_page(
        summary
    )


def test_where_there_is_no_percentile_it_says_of_how_many_samples(played: RunResult) -> None:
    document = summarise(played, "make compare WORKLOAD=my.yml")
    document["brokers"]["rabbit"]["scenarios"][0] |= {"samples": 180, "p99_ms": None}
    (row,) = scenarios.rows(Summary.model_validate(document))
    assert row[2] == "180 samples"


def test_the_report_tells_what_ran_beside_the_orders_over_all_rounds(tmp_path: Path) -> None:
    run = run_result(tmp_path, APART)
    for measured in run.sides.values():
        for reply_s in (0.004, 0.006, 0.005):
            told = Told(counts={"answered": 2, "timed_out": 0, "done_unanswered": 1})
            told.latencies.record(reply_s)
            told.latencies.record(reply_s)
            result = steady("request-reply", 0.02, {})
            measured.scenarios.append(ScenarioResult("request-reply", result, {}, (20.0,), told))
    summary = Summary.model_validate(summarise(run, "make compare WORKLOAD=my.yml"))
    (row,) = scenarios.rows(summary)
    said = "request to reply: p50 5.0 ms, highest 6.0 ms; 6 answered; 3 done though not answered"
    assert row[0] == "requests and replies beside it"
    assert row[4] == said
    for text in (render_page(summary), render_markdown(summary)):
        assert said in text


def test_what_went_wrong_beside_the_orders_leaves_no_figure_and_no_verdict(tmp_path: Path) -> None:
    run = run_result(tmp_path, APART)
    assert run.sound
    run.sides["kafka"].beside_wrong = ["jobs-1: job of graph 3: is lost"]
    assert not run.sound
    summary = Summary.model_validate(summarise(run, "make compare WORKLOAD=my.yml"))
    assert not summary.sound
    assert summary.brokers["kafka"].p50_ms is None
    assert summary.brokers["kafka"].examples["beside_wrong"] == ["jobs-1: job of graph 3: is lost"]
    assert "Kafka: 1 beside the orders: lost, doubled, wrong" in render_markdown(summary)


def test_a_side_that_lost_something_tells_nothing_of_its_scenarios(played: RunResult) -> None:
    measured = played.sides["rabbit"]
    assert len(figures(measured)) == 1
    measured.passage = replace(measured.passage, corrupted=1)
    assert figures(measured) == []


def test_a_run_without_scenarios_says_nothing_of_them(tmp_path: Path) -> None:
    summary = Summary.model_validate(summarise(run_result(tmp_path, APART), "make compare"))
    assert scenarios.rows(summary) == []
    assert "Scenarios" not in render_page(summary)


def test_events_of_scenarios_are_checked_with_all_others() -> None:
    workload = load_workload(DEFAULT_WORKLOAD.with_name("scenarios.yml"))
    assert [each.kind for each in workload.scenarios] == KINDS
    phases = plan(workload)
    kinds = [phase.kind for phase in phases]
    of_scenarios = [place for place, kind in enumerate(kinds) if kind.startswith("scenario ")]
    assert len(of_scenarios) == sum(each.rounds for each in workload.scenarios) * len(BROKERS)
    assert max(of_scenarios) < kinds.index(CHECK)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ([{"kind": "meteor"}], "scenarios.0: Input tag 'meteor'"),
        ([{"kind": "poison", "share": 2}], r"scenarios.0.poison.share: "),
        ([{"kind": "bursts", "events": 3}], r"scenarios.0.bursts.events: "),
        ([{"kind": "request-reply", "timeout_s": 61}], r"scenarios.0.request-reply.timeout_s: "),
        ([{"kind": "jobs", "steps": 1}], r"scenarios.0.jobs.steps: "),
        ([{"kind": "fan-out", "subscribers": 0}], r"scenarios.0.fan-out.subscribers: "),
        ([{"kind": "bursts"}, {"kind": "bursts"}], "scenarios names a kind twice"),
    ],
)
def test_a_scenario_that_does_not_exist_is_named(tmp_path: Path, asked: object, named: str) -> None:
    path = tmp_path / "workload.yml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(DEFAULT_WORKLOAD.read_text()), "scenarios": asked}))
    with pytest.raises(WorkloadError, match=named):
        load_workload(path)


def test_poison_goes_beside_the_events_and_is_about_something_of_its_own(tmp_path: Path) -> None:
    messages = [_message() for _ in range(10)]
    plants = Plants(tmp_path)
    with planted(tmp_path, Planted(poison=0.25)):
        published = [*plants.tampered(messages), *plants.tampered(messages)]
    assert [each for each in published if each in messages] == [*messages, *messages]
    poison = [each for each in published if each not in messages]
    assert len(poison) == 5
    assert len({each.key for each in poison} | {each.key for each in messages}) == 15
    for each in poison:
        assert Envelope.decode(each.body).dataschema != OrderPlaced.schema_uri()
        assert orjson.loads(each.body)["data"]["order_id"] == each.key
    assert plants.tampered(messages) is messages


def _message() -> Message:
    key = str(uuid4())
    event = Envelope(
        source="/services/order",
        type="order.placed",
        partitionkey=key,
        dataschema=OrderPlaced.schema_uri(),
        data={"order_id": key},
    )
    return Message("order", "order.placed", key, event.encode())
