import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy.errors import DeployError
from deploy.show.trace_tree import draw
from deploy.show.traces import find_in_files, parse_jaeger, parse_line

ORDER_TRACE = "a" * 32
BATCH_TRACE = "b" * 32
OTHER_TRACE = "c" * 32


def a_span(
    trace: str,
    span: str,
    name: str,
    *,
    parent: str = "",
    start_ms: int = 0,
    took_ms: int = 5,
    links: tuple[tuple[str, str], ...] = (),
    **more: Any,
) -> dict[str, Any]:
    return {
        "traceId": trace,
        "spanId": span,
        "parentSpanId": parent,
        "name": name,
        "kind": 2,
        "startTimeUnixNano": str(10**18 + start_ms * 10**6),
        "endTimeUnixNano": str(10**18 + (start_ms + took_ms) * 10**6),
        "links": [{"traceId": t, "spanId": s} for t, s in links],
        "status": {},
        **more,
    }


def a_line(service: str, *spans: dict[str, Any]) -> str:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}) + "\n"


def subject(value: str) -> list[dict[str, Any]]:
    return [{"key": "tandem.event.subject", "value": {"stringValue": value}}]


@pytest.fixture
def telemetry(tmp_path: Path) -> Path:
    create = a_span(ORDER_TRACE, "2" * 16, "create", parent="1" * 16, start_ms=1, attributes=subject("order-7"))
    process = a_span(
        ORDER_TRACE,
        "3" * 16,
        "process",
        parent="2" * 16,
        start_ms=9,
        links=((BATCH_TRACE, "4" * 16), (BATCH_TRACE, "4" * 16)),
        status={"code": 2, "message": "boom"},
    )
    batch = a_span(
        BATCH_TRACE, "4" * 16, "batch", start_ms=8, links=((ORDER_TRACE, "2" * 16), (OTHER_TRACE, "9" * 16))
    )
    (tmp_path / "traces-order.jsonl").write_text(
        a_line("order", create) + a_line("order", a_span(ORDER_TRACE, "1" * 16, "POST /orders", took_ms=4))
    )
    (tmp_path / "traces-notification.jsonl").write_text(
        a_line("notification", process)
        + a_line("notification", batch)
        + a_line("notification", a_span(OTHER_TRACE, "9" * 16, "other", attributes=subject("order-8")))
        + '{"resourceSpans": [{"reso'
    )
    return tmp_path


def drawn(telemetry: Path, wanted: str) -> list[str]:
    console = Console(width=200, force_terminal=False)
    with console.capture() as capture:
        for tree in draw(find_in_files(telemetry, wanted)):
            console.print(tree)
    return capture.get().splitlines()


def test_a_trace_is_found_by_any_id_in_it_and_drawn_across_services(telemetry: Path) -> None:
    lines = drawn(telemetry, "order-7")

    assert [line.lstrip(" │└├─").split("  ")[0:2] for line in lines] == [
        [f"trace {ORDER_TRACE}", "3 spans, 2 services, 14.0 ms"],
        ["order", "POST /orders"],
        ["order", "create"],
        ["notification", "process"],
        [f"linked trace {BATCH_TRACE}"],
        ["notification", "batch"],
    ]
    assert lines == drawn(telemetry, ORDER_TRACE)


def test_a_line_says_kind_duration_offset_and_error(telemetry: Path) -> None:
    process = next(line for line in drawn(telemetry, "order-7") if "process" in line)

    assert process.endswith("notification  process  server  5.0 ms  +9.0 ms  2 links  error: boom")


def test_a_linked_trace_is_nested_once_and_its_own_links_are_not_followed(telemetry: Path) -> None:
    text = "\n".join(drawn(telemetry, "order-7"))

    assert text.count(BATCH_TRACE) == 1
    assert OTHER_TRACE not in text


def test_a_span_whose_parent_was_not_recorded_is_a_root(tmp_path: Path) -> None:
    orphan = a_span(ORDER_TRACE, "2" * 16, "orphan", parent="f" * 16)
    (tmp_path / "traces-order.jsonl").write_text(a_line("order", orphan))

    assert "└── order  orphan" in drawn(tmp_path, ORDER_TRACE)[1]


def test_an_unknown_id_is_one_sentence(telemetry: Path) -> None:
    with pytest.raises(DeployError, match="no trace is known for 'order-9'"):
        find_in_files(telemetry, "order-9")


def test_an_id_must_match_as_a_whole(telemetry: Path) -> None:
    with pytest.raises(DeployError):
        find_in_files(telemetry, "order")


def test_names_are_shown_as_they_are_even_when_they_look_like_markup(tmp_path: Path) -> None:
    span = a_span(ORDER_TRACE, "1" * 16, "GET [red]/x[/red]")
    (tmp_path / "traces-order.jsonl").write_text(a_line("order", span))

    assert "GET [red]/x[/red]" in drawn(tmp_path, ORDER_TRACE)[1]


def test_a_line_that_a_killed_process_left_unfinished_is_no_error() -> None:
    assert list(parse_line(b'{"resourceSpans": [{')) == []


def test_what_jaeger_answers_becomes_the_same_spans() -> None:
    reference = {"refType": "CHILD_OF", "traceID": ORDER_TRACE, "spanID": "1" * 16}
    link = {"refType": "FOLLOWS_FROM", "traceID": BATCH_TRACE, "spanID": "4" * 16}
    raw = {
        "traceID": ORDER_TRACE,
        "spanID": "2" * 16,
        "operationName": "process",
        "references": [reference, link],
        "startTime": 10**15,
        "duration": 1500,
        "tags": [
            {"key": "span.kind", "value": "consumer"},
            {"key": "error", "value": True},
            {"key": "otel.status_description", "value": "boom"},
        ],
        "processID": "p1",
    }
    (span,) = parse_jaeger({"processes": {"p1": {"serviceName": "order"}}, "spans": [raw]})

    assert (span.service, span.name, span.kind, span.error) == ("order", "process", "consumer", "boom")
    assert span.parent_id == "1" * 16
    assert span.links == ((BATCH_TRACE, "4" * 16),)
    assert span.end_ns - span.start_ns == 1_500_000
