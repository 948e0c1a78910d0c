"""The report's page needs nothing else, can be read by everyone, and says no more than the summary."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from compare.command_line import main
from compare.document import DocumentError, Summary, read_summary, schema
from compare.report import charts, page, pull_request, svg
from compare.report.palette import DARK, LIGHT, contrast

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY / "reports" / "sample"
TWO_ROUNDS = Path(__file__).with_name("summaries") / "two_rounds.json"
"""Of a run that was too short for a verdict."""
SCHEMA = REPOSITORY / "docs" / "summary.schema.json"
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """The elements of a page in their order; fails where one is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), list(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), list(self.open)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes, _ in self.elements if tag == name]


@pytest.fixture
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TWO_ROUNDS.read_text())
    return found


@pytest.fixture
def decided(document: dict[str, Any]) -> dict[str, Any]:
    """Six rounds of the sample's figures, of which one was named."""
    for row in document["brokers"].values():
        row["by_round"] = {name: values * 3 for name, values in row["by_round"].items()}
    numbers = {"pairs": 6, "ratio": 1.5, "interval": [1.3, 1.8], "confidence": 0.969, "p": 0.03125}
    for row in document["comparison"].values():
        row.update(numbers, verdict="not named", sentence="no verdict: not named beforehand")
    document["comparison"]["p50_ms"] |= {
        "primary": True,
        "p_holm": 0.03125,
        "verdict": "better",
        "winner": "rabbit",
        "sentence": "rabbit lower by 33% (23% to 44%), through these clients",
    }
    return document


def rendered(document: dict[str, Any]) -> Page:
    return Page(page.render_page(Summary.model_validate(document)))


@pytest.mark.parametrize("name", ["document", "decided"])
def test_the_page_is_one_small_file_that_asks_for_nothing(name: str, request: pytest.FixtureRequest) -> None:
    text = page.render_page(Summary.model_validate(request.getfixturevalue(name)))
    assert len(text.encode()) < 400_000
    found = Page(text)
    assert not found.all("script")
    assert not found.all("link")
    assert not found.all("img")
    targets = [
        value for _, attributes, _ in found.elements for key, value in attributes.items() if key in {"href", "src"}
    ]
    assert all(target and target.startswith("#") for target in targets)
    assert "url(" not in text
    assert "@import" not in text


def test_a_screen_reader_finds_its_way(decided: dict[str, Any]) -> None:
    found = rendered(decided)
    assert found.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _, _ in found.elements if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit()]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(found.all("main")) == 1
    identities = Counter(a["id"] for _, a, _ in found.elements if "id" in a)
    assert set(identities.values()) == {1}
    named = [name for _, a, _ in found.elements for name in (a.get("aria-labelledby") or "").split()]
    assert set(named) <= identities.keys()
    assert len(found.all("table")) == len(found.all("caption"))
    assert all(a.get("scope") in {"row", "col"} for a in found.all("th"))
    regions = [a for _, a, _ in found.elements if a.get("role") == "region"]
    assert all(a.get("tabindex") == "0" for a in regions), "what scrolls must be reached by the keyboard"


def test_every_row_of_a_table_has_a_cell_for_each_head(decided: dict[str, Any]) -> None:
    widths: list[list[int]] = []
    for tag, attributes, _ in rendered(decided).elements:
        if tag == "table":
            widths.append([])
        elif tag == "tr":
            widths[-1].append(0)
        elif tag in {"th", "td"}:
            widths[-1][-1] += int(attributes.get("colspan") or 1)
    assert len(widths) > 5
    assert all(len(set(table)) == 1 and len(table) > 1 for table in widths), widths


def test_every_chart_says_in_words_what_it_shows(decided: dict[str, Any]) -> None:
    found = rendered(decided)
    assert len(found.all("svg")) >= 5
    assert all(a["role"] == "img" and a["aria-labelledby"] for a in found.all("svg"))
    drawn = {chart.title: chart.description for chart in charts.charts(Summary.model_validate(decided))}
    assert "p50 ms, request to effect: 1.50 (1.30 to 1.80), better." in next(iter(drawn.values()))
    assert any("Kafka: 1 42.0, 2 27.3" in words for words in drawn.values())


def test_nothing_of_a_chart_lies_outside_it(decided: dict[str, Any]) -> None:
    for tag, a, _ in rendered(decided).elements:
        for key in ("x", "x1", "x2", "cx"):
            if tag in {"text", "line", "circle", "rect"} and a.get(key):
                assert 0 <= float(a[key] or 0) <= svg.WIDTH, (tag, a)


def test_the_verdict_is_the_first_thing_that_is_said(decided: dict[str, Any]) -> None:
    words = " ".join(rendered(decided).words)
    said = "p50 ms, request to effect: Tandem on RabbitMQ lower by 33% (23% to 44%), through these clients."
    assert words.index(said) < words.index("Figures")
    assert "make compare" in words


def test_without_an_interval_there_is_no_ratio(document: dict[str, Any]) -> None:
    text = page.render_page(Summary.model_validate(document))
    assert "No verdict: 2 of 6 rounds." in text
    assert "2.05" not in text
    assert "3.59" not in text


def test_each_figure_that_was_named_has_a_verdict_of_its_own_on_the_page() -> None:
    found = Page((SAMPLE / "report.html").read_text())
    assert [a.get("class") for a in found.all("p")].count("verdict") == 4


def test_a_loss_takes_the_verdict_and_the_figures(decided: dict[str, Any]) -> None:
    side = decided["brokers"]["kafka"]
    side |= {"lost": 3, "p50_ms": None, "latency": None, "examples": {"lost": ["order.placed <k> 1"]}}
    side["range"]["p50_ms"] = [None, None]
    side["cost"] = dict.fromkeys(side["cost"])
    text = page.render_page(Summary.model_validate(decided))
    assert "No verdict: events were lost" in text
    assert "Kafka: 3 lost" in text
    assert "&lt;k&gt;" in text
    assert "Tandem on RabbitMQ lower" not in text


def test_what_a_run_says_cannot_become_markup(document: dict[str, Any]) -> None:
    document["notes"].append("<script>alert(1)</script> | <b>")
    document["workload"]["name"] = "<img src=x>"
    summary = Summary.model_validate(document)
    assert not Page(page.render_page(summary)).all("script")
    assert not Page(page.render_page(summary)).all("img")
    assert "<script>" not in pull_request.render_markdown(summary)


def test_every_setting_version_and_note_is_on_the_page(document: dict[str, Any]) -> None:
    words = " ".join(rendered(document).words)
    for expected in (
        *document["notes"],
        *document["versions"].values(),
        "clients.kafka_producer.linger_ms",
        "lz4",
    ):
        assert expected in words


def test_the_comment_on_a_pull_request_has_the_verdict_and_the_figures(decided: dict[str, Any]) -> None:
    text = pull_request.render_markdown(Summary.model_validate(decided))
    assert text.startswith("## Tandem on RabbitMQ 4.3.6 and on Kafka 4.3.0\n")
    assert (
        "| p50 ms, request to effect ★ | 21.4 (17.3 to 29.4) | 32.4 (27.3 to 42.0) | 1.50 (1.30 to 1.80) | 6 |"
        in text
    )
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| ")}
    assert widths == {8, 4}


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["page", "panel"])
def test_text_and_marks_stand_out(palette: dict[str, str], ground: str) -> None:
    """WCAG 2.2: 4.5 for text (1.4.3), 3 for what a chart is made of (1.4.11)."""
    for name in ("text", "muted", "link", "bad"):
        assert contrast(palette[name], palette[ground]) >= 4.5, name
    for name in ("rabbit", "kafka", "line"):
        assert contrast(palette[name], palette[ground]) >= 3, name
    assert contrast(palette["text"], palette["band"]) >= 4.5


def test_contrast_is_what_the_guidelines_say_it_is() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert LIGHT.keys() == DARK.keys()


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0"), (1234.5, "1,234"), (12.34, "12.3"), (0.123, "0.12"), (3.0, "3")]
)
def test_a_number_has_the_digits_that_one_reads(value: float, said: str) -> None:
    assert svg.number(value) == said


@pytest.mark.parametrize("high", [0.003, 1, 7, 99, 100, 101, 123_456])
def test_the_marks_of_an_axis_reach_its_highest_value_and_are_few(high: float) -> None:
    marks = svg.ticks(high)
    assert marks[0] == 0
    assert high <= marks[-1] * (1 + 1e-9)
    assert 3 <= len(marks) <= 8
    steps = svg.decades(high / 9, high)
    assert steps[0] <= high / 9 * (1 + 1e-9)
    assert steps[-1] >= high


def test_the_sample_is_what_the_published_schema_asks_for() -> None:
    published = json.loads(SCHEMA.read_text())
    document = json.loads((SAMPLE / "summary.json").read_text())
    jsonschema_rs.validator_for(published).validate(document)
    del document["comparison"]
    assert not jsonschema_rs.validator_for(published).is_valid(document)


def test_the_published_schema_is_that_of_the_code() -> None:
    assert SCHEMA.read_text() == schema(), (
        "run `python -m compare schema > docs/summary.schema.json` and commit it"
    )


def test_the_pages_of_the_sample_are_those_that_its_summary_makes() -> None:
    summary = read_summary(SAMPLE)
    again = "run `python -m compare report reports/sample` and commit it"
    assert (SAMPLE / "report.html").read_text() == page.render_page(summary), again
    assert (SAMPLE / "report.md").read_text() == pull_request.render_markdown(summary), again


def test_a_report_is_made_again_from_its_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "summary.json").write_bytes((SAMPLE / "summary.json").read_bytes())
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert (tmp_path / "report.html").read_bytes() == (SAMPLE / "report.html").read_bytes()


@pytest.mark.parametrize("text", [None, "{", "{}", '{"format": 1}'])
def test_what_is_no_summary_is_refused_in_a_sentence_that_names_it(
    tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DocumentError, match=r"summary\.json"):
        read_summary(tmp_path)
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
