"""Of a broker of one's own is said what was not measured and not checked, and nothing is made up."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from compare import command_line
from compare.decision import recommend
from compare.decision.constraints import lacking, open_questions
from compare.decision.preferences import Must, Preferences, Prices
from compare.document import Summary, read_summary
from compare.report import print_report, words
from compare.report.page import render_page
from compare.report.pull_request import render_markdown
from compare.run import RunResult, run
from compare.summary import summarise
from experiment.facts import not_checked, unequal_places
from experiment.own_brokers import OwnBrokerError, OwnBrokers, take_from
from experiment.profiles import PROFILES
from experiment.workload import load_workload
from tests.compare.test_judgement import APART, run_result

WHERE = "mq.example.org:5671"


def own_rabbit(tmp_path: Path, rates: Any = APART) -> RunResult:
    """A run on a RabbitMQ of one's own: nothing was there to be looked at."""
    result = run_result(tmp_path, rates)
    result.settings |= {"own_brokers": {"rabbit": WHERE}, "not_checked": ["rabbit"]}
    for broker, measured in result.sides.items():
        measured.side.own_broker = WHERE if broker == "rabbit" else None
        measured.steady = [replace(each, cpu_s=_without(each.cpu_s)) for each in measured.steady]
        measured.backlogs = [
            replace(
                each,
                cpu_s=_without(each.cpu_s),
                relay_cpu_s=_without(each.relay_cpu_s),
                broker_memory_bytes=None if broker == "rabbit" else each.broker_memory_bytes,
            )
            for each in measured.backlogs
        ]
    return result


def _without(cpu_s: dict[str, float]) -> dict[str, float]:
    return {name: used for name, used in cpu_s.items() if name != "rabbit"}


@pytest.fixture
def result(tmp_path: Path) -> RunResult:
    return own_rabbit(tmp_path)


def test_what_the_broker_used_is_not_measured_and_never_nothing(result: RunResult) -> None:
    summary = Summary.model_validate(summarise(result, "make compare"))
    rabbit, kafka = summary.brokers["rabbit"], summary.brokers["kafka"]
    of_broker = [name for name in rabbit.cost if name.startswith("broker_")]
    assert len(of_broker) >= 7
    assert {rabbit.cost[name] for name in of_broker} == {None}
    assert set(rabbit.broker_cores.values()) == {None}
    assert [each.broker_memory_mib for each in rabbit.backlog_rounds] == [None] * len(rabbit.backlog_rounds)
    assert kafka.cost["broker_memory_mib"] == 256
    assert {words.cost(summary, "rabbit", name) for name in of_broker} == {"not measured"}
    assert words.cost(summary, "kafka", "broker_memory_mib") == "256"
    assert words.cost(summary, "rabbit", "postgres_bytes_written_per_event") == "none"


def test_every_form_of_the_report_says_so(result: RunResult) -> None:
    document = summarise(result, "make compare")
    summary, console = Summary.model_validate(document), Console(file=io.StringIO(), width=150)
    print_report(document, Path("reports/x"), console)
    assert isinstance(console.file, io.StringIO)
    table, page, markdown = console.file.getvalue(), render_page(summary), render_markdown(summary)
    assert "not measured" in table
    assert page.count("not measured") >= 7
    for text in (table, page, markdown):
        assert f"rabbit is one's own, at {WHERE}" in text.replace("&#39;", "'")
    for text in (page, markdown):
        assert "Not checked: what RabbitMQ, one's own, promises by confirming" in text.replace("&#39;", "'")
        assert "network between them" in text


def test_a_figure_of_which_the_limit_is_not_seen_is_of_unknown_limit(result: RunResult) -> None:
    document = summarise(result, "make compare")
    drained = document["comparison"]["effects_per_s"]
    assert drained["limiters"]["rabbit"] == "unknown (the broker is not measured)"
    assert drained["limiters"]["kafka"] == "broker CPU (0.80 cores)"
    assert drained["sentence"].endswith(", through these Python clients"), "its broker may not have been the limit"
    assert not any("not limited by a broker" in note for note in document["notes"])


def test_a_client_that_has_no_more_to_give_is_seen_all_the_same(result: RunResult) -> None:
    measured = result.sides["rabbit"]
    measured.backlogs = [replace(each, cpu_s={"rabbit_services": 9.0}) for each in measured.backlogs]
    found = summarise(result, "make compare")["comparison"]["effects_per_s"]["limiters"]
    assert found["rabbit"] == "client CPU (0.90 cores)"


def test_what_must_be_on_the_disk_is_an_open_question_and_money_is_unknown(result: RunResult) -> None:
    summary = Summary.model_validate(summarise(result, "make compare"))
    must = Must(capabilities=("confirmed_is_on_disk",))
    assert lacking(summary, must) == {}
    assert open_questions(summary, must) == {
        "rabbit": "whether what RabbitMQ has confirmed is on the disk was not checked"
    }
    weighed = recommend(summary, Preferences(weights={"money": 1.0}, prices=Prices(core_hour=0.04)))
    assert weighed.money_per_million["rabbit"] is None
    assert weighed.broker is None


@pytest.mark.parametrize(("left", "code"), [([], 0), (["topics on Kafka at k1: refused"], 1)])
def test_names_that_stay_are_told_and_make_the_run_fail(
    result: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: list[str], code: int
) -> None:
    result.left_behind = left
    monkeypatch.setattr(command_line, "run", lambda *_: result)
    assert command_line.main(["--out", str(tmp_path / "report")]) == code
    notes = read_summary(tmp_path / "report").notes
    assert ("not deleted: topics on Kafka at k1: refused." in notes) == bool(left)


def test_a_run_on_started_brokers_says_nothing_of_it(tmp_path: Path) -> None:
    document = summarise(run_result(tmp_path, APART), "make compare")
    summary = Summary.model_validate(document)
    for text in (render_page(summary), render_markdown(summary), " ".join(document["notes"])):
        assert "one's own" not in text.replace("&#39;", "'")
        assert "not measured" not in text


def test_that_one_broker_is_far_and_the_other_near_is_the_first_inequality() -> None:
    own = take_from({"TANDEM_RABBIT_URL": f"amqps://u:p@{WHERE}/"})
    assert unequal_places(own) == [
        f"RabbitMQ is one's own, at {WHERE}",
        "Kafka is started on this machine",
    ]
    assert unequal_places(OwnBrokers()) == []


def test_a_promise_is_checked_only_where_the_run_itself_asks_for_it() -> None:
    own = take_from({"TANDEM_RABBIT_URL": f"amqps://u:p@{WHERE}/", "TANDEM_KAFKA_SERVERS": "k1:9092"})
    assert not_checked(own, PROFILES["single-fsync"]) == ["rabbit"], "Kafka is told with each topic"
    assert not_checked(own, PROFILES["single-pagecache"]) == ["rabbit", "kafka"]
    assert not_checked(OwnBrokers(), PROFILES["single-fsync"]) == []
    assert PROFILES["single-fsync"].services["TANDEM_KAFKA_SYNCED"] == "true"


def test_a_profile_of_nodes_that_a_run_starts_is_refused(tmp_path: Path) -> None:
    own = take_from({"TANDEM_KAFKA_SERVERS": "k1:9092"})
    replicated = load_workload(command_line.DEFAULT_WORKLOAD, profile="replicated")
    with pytest.raises(OwnBrokerError, match="replicated"):
        run(replicated, tmp_path, own)
