"""A recommendation comes of musts and weights, and says how sure it is; a change is judged like a comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from compare.changes import changes
from compare.command_line import main
from compare.decision import Preferences, PreferencesError, load_preferences, recommend
from compare.document import Summary
from compare.report.page import render_page
from compare.report.pull_request import render_markdown

REPOSITORY = Path(__file__).parents[2]
TWO_ROUNDS = Path(__file__).with_name("summaries") / "two_rounds.json"
EXAMPLE = REPOSITORY / "compare" / "preferences" / "example.yml"
FIGURES = ("effects_per_s", "relay_events_per_s", "p50_ms", "p99_ms")
LEADS = st.lists(st.integers(-800, 800).map(lambda value: 1 + value / 1_000), min_size=6, max_size=8)


def run(samples: int = 2_000, **ratios: Sequence[float]) -> dict[str, Any]:
    """A run in which Kafka has so many times of RabbitMQ's 100 in each round; 1 where nothing is said."""
    document: dict[str, Any] = json.loads(TWO_ROUNDS.read_text())
    rounds = max(len(values) for values in ratios.values())
    for broker, row in document["brokers"].items():
        row["by_round"] = {
            name: [100.0 * (ratio if broker == "kafka" else 1) for ratio in ratios.get(name, [1.0] * rounds)]
            for name in FIGURES
        }
        row["backlog_rounds"] = [
            row["backlog_rounds"][0] | {"effects_per_s": value} for value in row["by_round"]["effects_per_s"]
        ]
        row["steady_rounds"] = [
            row["steady_rounds"][0] | {"latency": row["steady_rounds"][0]["latency"] | {"samples": samples}}
        ] * rounds
    for row in document["comparison"].values():
        row.update(verdict="not named", sentence="no verdict: not named beforehand")
    document["comparison"]["p50_ms"]["primary"] = True
    return document


def asked(document: dict[str, Any], **preferences: Any) -> Any:
    return recommend(Summary.model_validate(document), Preferences.model_validate(preferences))


def test_who_leads_in_every_round_is_recommended_with_a_reason() -> None:
    found = asked(run(p50_ms=[1.3] * 6), weights={"p50_ms": 1})
    assert found.broker == "rabbit"
    assert found.p_best["rabbit"] == pytest.approx(1 - 0.5 / 64, abs=1e-4)
    assert found.verdict == "RabbitMQ (P(best) 99% for RabbitMQ)."
    assert found.why == ["p50_ms (weight 100%): RabbitMQ by a factor of 1.30"]
    assert found.flips == {"p50_ms": None}
    assert any("clusters" in sentence for sentence in found.unknown)


def test_below_four_in_five_there_is_no_recommendation() -> None:
    found = asked(run(p50_ms=[1.3, 0.8, 1.1, 0.9, 1.2, 0.85]), weights={"p50_ms": 1})
    assert found.broker is None
    assert 0.2 < found.p_best["rabbit"] < 0.8
    assert "less than 80%" in found.verdict


def test_equal_systems_are_even() -> None:
    found = asked(run(p50_ms=[1.0] * 6), weights={"p50_ms": 1})
    assert found.p_best == {"rabbit": 0.5, "kafka": 0.5}
    assert found.broker is None
    assert found.why[-1].endswith("the choice matters little")


def test_the_weight_at_which_the_answer_turns_turns_it() -> None:
    document = run(p50_ms=[1.5] * 6, effects_per_s=[1.2] * 6)
    share = asked(document, weights={"p50_ms": 1, "effects_per_s": 1}).flips["effects_per_s"]
    assert 0.5 < share < 1
    for weight, winner in ((share - 0.01, "rabbit"), (share + 0.01, "kafka")):
        assert asked(document, weights={"p50_ms": 1 - weight, "effects_per_s": weight}).broker == winner


def test_where_one_leads_in_everything_no_weight_turns_the_answer() -> None:
    document = run(p50_ms=[1.5] * 6, effects_per_s=[0.8] * 6)
    assert set(asked(document, weights={"p50_ms": 1, "effects_per_s": 1}).flips.values()) == {None}


@settings(max_examples=30, deadline=None)
@given(LEADS, st.floats(0.1, 10))
def test_only_the_proportions_of_weights_matter_and_chances_add_up(leads: list[float], times: float) -> None:
    document = run(p50_ms=leads, effects_per_s=leads[::-1])
    found = asked(document, weights={"p50_ms": 1, "effects_per_s": 2})
    again = asked(document, weights={"p50_ms": times, "effects_per_s": 2 * times})
    assert sum(found.p_best.values()) == pytest.approx(1)
    assert again.p_best == pytest.approx(found.p_best, abs=0.02)  # rounding may move a mean across 0


@settings(max_examples=30, deadline=None)
@given(LEADS, st.floats(1, 3))
def test_who_becomes_slower_is_no_likelier_to_be_the_best(leads: list[float], slower: float) -> None:
    before = asked(run(p50_ms=leads), weights={"p50_ms": 1})
    after = asked(run(p50_ms=[value * slower for value in leads]), weights={"p50_ms": 1})
    assert after.p_best["kafka"] <= before.p_best["kafka"]


def test_what_one_must_have_comes_before_all_weights() -> None:
    found = asked(run(p50_ms=[1.3] * 6), must={"capabilities": ["replay"]}, weights={"p50_ms": 1})
    assert found.broker == "kafka"
    assert found.why[0] == "RabbitMQ is out: it lacks replay"


def test_where_both_lack_what_one_must_have_neither_is_recommended() -> None:
    found = asked(
        run(p50_ms=[1.3] * 6), must={"capabilities": ["replay", "routes_by_type"]}, weights={"p50_ms": 1}
    )
    assert found.broker is None
    assert "neither broker" in found.verdict


def test_a_latency_budget_that_one_misses_in_every_round_puts_it_out() -> None:
    document = run(p50_ms=[0.5] * 6, p99_ms=[3.0] * 6)
    found = asked(document, must={"p99_ms_max": 200}, weights={"p50_ms": 1})
    assert found.broker == "rabbit"
    assert found.why[0].startswith("Kafka is out: its p99 was over 200 ms")


@pytest.mark.parametrize(("samples", "last"), [(2_000, 3.0), (999, 1.0)])
def test_a_budget_that_is_not_known_to_be_kept_gives_no_recommendation(samples: int, last: float) -> None:
    document = run(samples, p50_ms=[0.5] * 6, p99_ms=[1.0] * 5 + [last])
    found = asked(document, must={"p99_ms_max": 200}, weights={"p50_ms": 1})
    assert found.broker is None
    assert "not known whether Kafka" in found.verdict


def test_figures_without_enough_rounds_are_not_weighed_and_named() -> None:
    found = asked(run(p50_ms=[1.3] * 6, effects_per_s=[9.0]), weights={"p50_ms": 1, "effects_per_s": 9})
    assert found.broker == "rabbit"
    assert "effects_per_s: 1 of 6 rounds have it" in found.unknown


def test_a_figure_of_which_the_run_says_nothing_is_not_weighed() -> None:
    document = run(p50_ms=[1.3] * 6)
    document["comparison"]["p50_ms"].update(verdict="none", why="busy machine")
    found = asked(document, weights={"p50_ms": 1})
    assert found.broker is None
    assert "p50_ms: busy machine" in found.unknown


def test_a_loss_leaves_no_recommendation() -> None:
    document = run(p50_ms=[1.3] * 6)
    document["brokers"]["kafka"]["lost"] = 1
    assert asked(document, weights={"p50_ms": 1}).broker is None


def test_a_control_that_failed_leaves_no_recommendation() -> None:
    document = run(p50_ms=[1.3] * 6)
    control = {"name": "delay", "broker": None, "planted": "5 ms", "found": "nothing", "passed": True}
    document["controls"] = [control]
    assert asked(document, weights={"p50_ms": 1}).broker == "rabbit"
    document["controls"] = [control | {"passed": False}]
    found = asked(document, weights={"p50_ms": 1})
    assert (found.broker, "a control failed (delay)" in found.verdict) == (None, True)


def test_money_is_what_the_sheet_makes_of_cpu_time_and_memory() -> None:
    document = run(effects_per_s=[1.0] * 6)
    for row in document["brokers"]["rabbit"]["backlog_rounds"]:
        row.update(
            cpu_s={"rabbit": 1.0, "postgres": 2.0, "redis": 0.5, "rabbit_services": 3.7, "kafka": 99.0},
            cpu_effects=10_000,
            broker_memory_mib=2_048,
            effects_per_s=1_000.0,
        )
    found = asked(document, weights={"money": 1}, prices={"core_hour": 3.6, "gib_hour": 3.6})
    assert found.money_per_million["rabbit"] == pytest.approx(720 * 3.6 / 3_600 + 2 * 1_000 * 3.6 / 3_600)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ("weights: {p50_ms: 1, speed: 2}", "weights.speed"),
        ("weights: {p50_ms: 0}", "weights: one at least"),
        ("weights: {p50_ms: -1}", "weights.p50_ms"),
        ("weights: {money: 1}", "prices are all 0"),
        ("{weights: {p50_ms: 1}, must: {capabilities: [magic]}}", "must.capabilities.0"),
        ("{weights: {p50_ms: 1}, p_best_min: 0.5}", "p_best_min"),
        ("weights: [", "is no YAML"),
        ("", "preferences"),
    ],
)
def test_bad_preferences_are_one_sentence_that_names_the_field(
    tmp_path: Path, document: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(document)
    with pytest.raises(PreferencesError) as refused:
        load_preferences(path)
    assert named in str(refused.value)
    assert main(["--prefer", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_example_of_preferences_is_read() -> None:
    assert load_preferences(EXAMPLE) == Preferences.model_validate(yaml.safe_load(EXAMPLE.read_text()))


def changed(before: dict[str, Any], now: dict[str, Any]) -> Any:
    return changes(Summary.model_validate(before), Summary.model_validate(now), "reports/x")


def test_a_change_is_judged_on_each_broker_by_itself() -> None:
    found = changed(run(p50_ms=[1.0] * 6), run(p50_ms=[1.3] * 6)).figures
    assert (found["kafka"]["p50_ms"].verdict, found["rabbit"]["p50_ms"].verdict) == ("worse", "equivalent")
    assert found["kafka"]["p50_ms"].sentence == "worse: +30% (+30% to +30%)"
    assert found["kafka"]["p99_ms"].verdict == "not named"
    turned = changed(run(p50_ms=[1.3] * 6), run(p50_ms=[1.0] * 6)).figures
    assert turned["kafka"]["p50_ms"].verdict == "better"


def test_of_two_runs_of_the_same_nothing_changed() -> None:
    document = run(p50_ms=[1.0, 1.05, 0.97, 1.02, 1.01, 0.99])
    found = changed(document, document)
    assert {row["p50_ms"].verdict for row in found.figures.values()} == {"equivalent"}
    assert found.circumstances == []


def test_another_load_or_machine_is_no_change_and_other_settings_are_named() -> None:
    other = run(p50_ms=[1.0] * 6)
    other["workload"]["steady"]["orders_per_s"] = 99.0
    assert changed(run(p50_ms=[1.0] * 6), other).refused == "the runs had another load: steady.orders_per_s"
    larger = run(p50_ms=[1.0] * 6)
    larger["workload"]["payload_bytes"] = 1_000
    assert changed(run(p50_ms=[1.0] * 6), larger).refused == "the runs had another load: payload_bytes"
    larger["workload"]["payload_bytes"] = 0  # and before there was such a field
    larger["workload"] |= {"consumers": 1, "backlog": larger["workload"]["backlog"] | {"updates_share": 0.0}}
    larger["workload"]["warm_up"] = larger["workload"]["warm_up"] | {"steady_s_max": 60}  # a limit, and no load
    assert changed(run(p50_ms=[1.0] * 6), larger).refused is None
    larger["workload"]["backlog"]["updates_share"] = 0.3
    hot = changed(run(p50_ms=[1.0] * 6), larger)
    assert hot.refused == "the runs had another load: backlog.updates_share"
    moved = run(p50_ms=[1.0] * 6)
    moved["hardware"]["cores"] = 64
    moved["versions"]["kafka"] = "9.9"
    found = changed(run(p50_ms=[1.0] * 6), moved)
    assert found.refused == "the runs were on other machines: cores"
    assert ("versions.kafka", "4.3.0", "9.9") in [(row.what, row.before, row.now) for row in found.circumstances]


def test_what_forbids_a_verdict_in_a_run_forbids_one_between_two() -> None:
    busy = run(p50_ms=[1.3] * 6)
    busy["comparison"]["p50_ms"].update(verdict="none", why="busy machine")
    found = changed(busy, run(p50_ms=[1.0] * 6)).figures["kafka"]["p50_ms"]
    assert found.sentence == "no verdict: the other run: busy machine"


def test_the_pages_say_what_is_recommended_and_what_changed(tmp_path: Path) -> None:
    for name, ratio in (("now", 1.3), ("before", 1.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(run(p50_ms=[ratio] * 6)))
    now, before = tmp_path / "now", tmp_path / "before"
    assert main(["report", str(now), "--base", str(before), "--prefer", str(EXAMPLE)]) == 0
    for page in ("report.html", "report.md"):
        text = (now / page).read_text()
        for expected in ("P(best)", "What it does not know", "worse: +30%", "are pairs"):
            assert expected in text
    assert "<section" in render_page(Summary.model_validate(run(p50_ms=[1.0] * 6)))
    assert "Recommendation" not in render_markdown(Summary.model_validate(run(p50_ms=[1.0] * 6)))
