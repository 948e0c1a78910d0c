"""The documents say what the code says: what is generated is current, what is written by hand has every name."""

from __future__ import annotations

import re
from importlib import import_module
from io import StringIO
from itertools import combinations, pairwise
from pkgutil import resolve_name
from unittest.mock import create_autospec

import orjson
import pytest
from opentelemetry.metrics import Meter
from rich.console import Console

from compare.report.table import print_report
from deploy.topology import SERVICES
from docs.generate import event_picture
from docs.generate.event_picture import ARROWS, BOXES, HEIGHT, WIDTH, Arrow
from docs.generate.pages import PAGES, ROOT
from shared.broker.asking import TIMEOUT_MS, TIMEOUT_S_MAX
from shared.broker.base import BODY_BYTES_MAX, HEADERS_BYTES_MAX
from shared.broker.kafka.replies import CORRELATION_ID, REPLY_TO
from shared.dead_letter.headers import KEY_BYTES_MAX, OWN_HEADERS
from shared.envelope import EVENT_BYTES_MAX, Envelope
from shared.errors import UndecodableError
from shared.settings import Settings
from shared.telemetry.metrics import Metrics
from tests.unit.unserved import unserved

REPOSITORY = ROOT.parent
SAMPLE = REPOSITORY / "reports" / "sample"
README_LINES_MAX = 130
Extent = tuple[float, float, float, float]


@pytest.mark.parametrize("name", PAGES)
def test_generating_a_document_again_changes_nothing(name: str) -> None:
    assert (ROOT / name).read_text() == PAGES[name](), "run `make docs` and commit what it writes"


def test_every_setting_is_in_the_reference_with_a_sentence() -> None:
    rows = re.findall(r"^\| `(TANDEM_[A-Z_]+)` \| .+ \| .+ \| (.+) \|$", (ROOT / "settings.md").read_text(), re.M)
    assert [name for name, _ in rows] == [f"TANDEM_{name.upper()}" for name in Settings.model_fields]
    assert all(len(sentence) > 15 for _, sentence in rows)


# -- the picture


def apart(one: Extent, other: Extent) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def within(inner: Extent, outer: Extent) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def segments(arrow: Arrow) -> list[Extent]:
    return [(min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)) for (ax, ay), (bx, by) in pairwise(arrow.points)]


def test_no_text_of_the_picture_lies_on_another_or_on_a_line() -> None:
    texts = [(text.words, text.extent) for text in event_picture.texts()]
    assert [(a, b) for (a, one), (b, other) in combinations(texts, 2) if not apart(one, other)] == []
    lines = [segment for arrow in ARROWS for segment in segments(arrow)]
    assert [words for words, extent in texts for line in lines if not apart(extent, line)] == []


def test_every_text_of_the_picture_is_whole_inside_a_box_or_outside_all_small_ones() -> None:
    boxes = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in BOXES]
    assert all(within(box, (0, 0, WIDTH, HEIGHT)) for box in boxes)
    small = [box for box, is_a in zip(boxes, BOXES, strict=True) if is_a.title_at is None]
    cut = [
        t.words
        for t in event_picture.texts()
        for box in small
        if not (within(t.extent, box) or apart(t.extent, box))
    ]
    assert cut == []
    assert [t.words for t in event_picture.texts() if not within(t.extent, (0, 0, WIDTH, HEIGHT))] == []


def test_the_picture_loads_nothing_from_elsewhere() -> None:
    picture = event_picture.render().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"href|https?:|@import|url\((?!#)|<script|<image", picture)
    assert "prefers-color-scheme: dark" in picture


# -- the wire format


def first_cells(title: str) -> list[str]:
    """The names in the first column of the first table below a heading of `wire-format.md`."""
    section = (ROOT / "wire-format.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.M)


def test_the_wire_reference_has_every_attribute_of_an_event() -> None:
    optional = ("subject", "partitionkey", "traceparent", "correlationid", "causationid")
    event = Envelope(source="/s", type="t", data={}, dataschema="urn:x", **dict.fromkeys(optional, "-"))
    assert sorted(first_cells("The event")) == sorted(orjson.loads(event.encode()))


def test_the_wire_reference_says_which_attributes_are_needed() -> None:
    section = (ROOT / "wire-format.md").read_text()
    needed = set(re.findall(r"^\| `(\w+)` \| yes \|", section, re.M))
    whole = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {}}
    Envelope.decode(orjson.dumps({name: value for name, value in whole.items() if name in needed}))
    for name in needed:
        with pytest.raises(UndecodableError):
            Envelope.decode(orjson.dumps({key: value for key, value in whole.items() if key != name}))


def test_the_wire_reference_has_every_header_that_is_added() -> None:
    assert sorted(first_cells("Headers that Tandem adds")) == sorted(OWN_HEADERS)


def test_the_wire_reference_has_every_header_of_a_request() -> None:
    assert first_cells("Requests and replies") == [TIMEOUT_MS, CORRELATION_ID, REPLY_TO]
    assert f"at most {int(TIMEOUT_S_MAX * 1_000):,}" in (ROOT / "wire-format.md").read_text()


def test_the_wire_reference_has_the_limits_of_the_code() -> None:
    text = (ROOT / "wire-format.md").read_text()
    assert f"at most {EVENT_BYTES_MAX:,} bytes" in text
    limits = f"a body of {BODY_BYTES_MAX // 2**20} MiB, {HEADERS_BYTES_MAX // 2**10} KiB of headers, a key of"
    assert f"{limits} {KEY_BYTES_MAX // 2**10} KiB" in " ".join(text.split())


# -- the README and operating


def test_the_snippet_of_the_readme_is_the_example_that_is_run() -> None:
    [snippet] = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "README.md").read_text(), re.M | re.S)
    app = (REPOSITORY / "examples" / "receipts" / "app.py").read_text()
    assert snippet == app.split("# readme: from here\n")[1].split("# readme: to here\n")[0]


def test_the_readme_is_read_at_one_sitting() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= README_LINES_MAX


def test_the_table_of_the_readme_is_what_the_sample_prints() -> None:
    shown = (REPOSITORY / "README.md").read_text().split("```\n")[1]
    printed = StringIO()
    print_report(orjson.loads((SAMPLE / "summary.json").read_bytes()), SAMPLE, Console(file=printed))
    head, rest = (part.splitlines() for part in printed.getvalue().split("└")[:2])
    assert [line.rstrip() for line in [*head, f"└{rest[0]}"]] == shown.splitlines()[2:]


def test_a_post_or_patch_takes_an_idempotency_key_but_for_those_that_the_readme_excepts() -> None:
    without = set()
    for name in SERVICES:
        service = import_module(f"services.{name}.app").SERVICE
        if service.application is None:
            continue
        document = resolve_name(service.application)(unserved(service)).openapi()
        without |= {
            f"{method} {path}"
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            if method in {"post", "patch"}
            and not any(one["name"].lower() == "idempotency-key" for one in operation.get("parameters", []))
        }
    assert without == {"post /session", "post /transfers/quote"}


def test_the_index_of_the_documents_has_every_one_of_them() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)", (ROOT / "README.md").read_text()))
    assert linked == {path.name for path in ROOT.glob("*.md")} - {"README.md"}


def test_operating_names_every_metric_of_our_own_and_no_other() -> None:
    named = set(re.findall(r"`((?:tandem|messaging)\.[a-z._]+)`", (ROOT / "operating.md").read_text()))
    meter = create_autospec(Meter, instance=True)
    Metrics(meter, "rabbit")
    assert named - {"tandem.queue"} == {call.args[0] for call in meter.method_calls}  # the first is an attribute


def test_every_file_that_a_document_names_is_there() -> None:
    """But in the changelog, which tells of the past, and in CONTRIBUTING, which tells of what is to be made."""
    texts = [REPOSITORY / "README.md", *ROOT.glob("*.md"), *ROOT.glob("adr/*.md")]
    places = "shared|services|deploy|experiment|compare|faults|bench|tests|examples|docs|reports/sample"
    missing = {
        f"{path.name}: {named}"
        for path in texts
        for named in re.findall(rf"`((?:{places})/[\w./*-]*)", path.read_text())
        if not named.endswith(("-", ".")) and not any(REPOSITORY.glob(named.rstrip("/")))
    }
    assert missing == set()
