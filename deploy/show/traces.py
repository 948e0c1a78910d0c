"""Reads spans back: from the OTLP JSON-lines files of the native runtime, or from Jaeger.

The files follow the OTLP JSON mapping (OpenTelemetry protocol specification, "OTLP/JSON"): ids in hexadecimal,
times in nanoseconds as decimal strings.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from deploy.errors import DeployError

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUS_ERROR = 2
_JAEGER_TIMEOUT_S = 10.0
# Jaeger finds spans by the exact key; these carry ids (see shared/telemetry/spans.py).
_JAEGER_KEYS = ("tandem.event.subject", "messaging.message.id", "tandem.order.id", "tandem.user.id")


@dataclass(frozen=True)
class Span:
    """One recorded span; times in nanoseconds since the epoch, `error` is None when all went well."""

    trace_id: str
    span_id: str
    parent_id: str | None
    service: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    error: str | None
    links: tuple[tuple[str, str], ...]
    values: frozenset[str]


@dataclass(frozen=True)
class Found:
    """The traces that an id led to, oldest first, and the traces that their spans link to."""

    traces: dict[str, list[Span]]
    linked: dict[str, list[Span]]


def find_in_files(directory: Path, wanted: str) -> Found:
    """Look in `traces-*.jsonl` and the older ones beside them for a trace id, or for an attribute's value.

    Raises DeployError when it occurs nowhere.
    """
    hits = {span.trace_id for span in _spans(directory, [wanted]) if _matches(span, wanted)}
    return _collect(wanted, hits, lambda trace_ids: _spans(directory, trace_ids))


def find_in_jaeger(base_url: str, wanted: str) -> Found:
    """The same from Jaeger's HTTP API.

    Raises DeployError when it occurs nowhere or Jaeger does not answer.
    """
    with httpx.Client(base_url=base_url, timeout=_JAEGER_TIMEOUT_S, trust_env=False) as client:
        try:
            hits = _jaeger_hits(client, wanted)
            return _collect(wanted, hits, lambda trace_ids: _jaeger_spans(client, trace_ids))
        except httpx.HTTPError as error:
            raise DeployError(f"Jaeger at {base_url} does not answer: {error}") from error


def parse_line(line: bytes) -> Iterator[Span]:
    """The spans of one line; an incomplete last line, as a killed process leaves it, has none."""
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        return
    for resource in document.get("resourceSpans", ()):
        attributes = resource.get("resource", {}).get("attributes", ())
        service = next((_text(row["value"]) for row in attributes if row["key"] == "service.name"), "?")
        for scope in resource.get("scopeSpans", ()):
            for raw in scope.get("spans", ()):
                yield _span(raw, service)


def parse_jaeger(trace: dict[str, Any]) -> Iterator[Span]:
    """The spans of one trace as Jaeger's HTTP API gives it."""
    names = {key: process["serviceName"] for key, process in trace["processes"].items()}
    for raw in trace["spans"]:
        yield _from_jaeger(raw, names.get(raw["processID"], "?"))


def _collect(wanted: str, hits: Collection[str], load: Callable[[Collection[str]], Iterable[Span]]) -> Found:
    if not hits:
        raise DeployError(f"no trace is known for {wanted!r} (spans are written within a few seconds)")
    traces = _by_trace(load(hits), hits)
    links = {trace_id for spans in traces.values() for span in spans for trace_id, _ in span.links} - set(hits)
    linked = _by_trace(load(links), links) if links else {}
    return Found(traces, linked)


def _by_trace(spans: Iterable[Span], wanted: Collection[str]) -> dict[str, list[Span]]:
    grouped: dict[str, dict[str, Span]] = {}
    for span in spans:
        if span.trace_id in wanted:
            grouped.setdefault(span.trace_id, {})[span.span_id] = span
    ordered = {
        key: sorted(rows.values(), key=lambda span: (span.start_ns, span.span_id)) for key, rows in grouped.items()
    }
    return dict(sorted(ordered.items(), key=lambda item: item[1][0].start_ns))


def _spans(directory: Path, needles: Collection[str]) -> Iterator[Span]:
    """Spans of the lines in which one of the texts occurs: most lines need not be parsed."""
    pattern = re.compile(b"|".join(re.escape(needle.encode()) for needle in needles))
    for path in sorted(directory.glob("traces-*.jsonl*")):
        with suppress(FileNotFoundError), path.open("rb") as lines:  # it has just become another's predecessor
            for line in lines:
                if pattern.search(line):
                    yield from parse_line(line)


def _matches(span: Span, wanted: str) -> bool:
    return span.trace_id == wanted.lower() or wanted in span.values


def _span(raw: dict[str, Any], service: str) -> Span:
    status = raw.get("status", {})
    failed = status.get("code", 0) in (_STATUS_ERROR, "STATUS_CODE_ERROR")
    return Span(
        trace_id=raw["traceId"],
        span_id=raw["spanId"],
        parent_id=raw.get("parentSpanId") or None,
        service=service,
        name=raw["name"],
        kind=_kind(raw.get("kind", 0)),
        start_ns=int(raw["startTimeUnixNano"]),
        end_ns=int(raw["endTimeUnixNano"]),
        error=(status.get("message") or "error") if failed else None,
        links=tuple((link["traceId"], link["spanId"]) for link in raw.get("links", ())),
        values=frozenset(text for row in raw.get("attributes", ()) for text in _texts(row["value"])),
    )


def _kind(value: int | str) -> str:
    if isinstance(value, str):
        return value.removeprefix("SPAN_KIND_").lower()
    return KINDS[value] if 0 <= value < len(KINDS) else "?"


def _text(value: dict[str, Any]) -> str:
    return next(iter(_texts(value)), "")


def _texts(value: dict[str, Any]) -> Iterator[str]:
    if "arrayValue" in value:
        for part in value["arrayValue"].get("values", ()):
            yield from _texts(part)
    else:
        yield from (str(part) for part in value.values() if not isinstance(part, dict))


def _jaeger_hits(client: httpx.Client, wanted: str) -> set[str]:
    if re.fullmatch(r"[0-9a-fA-F]{32}", wanted) and list(_jaeger_spans(client, [wanted.lower()])):
        return {wanted.lower()}
    hits: set[str] = set()
    for service in _jaeger_data(client, "/api/services", {}):
        for key in _JAEGER_KEYS:
            query = {"service": service, "tags": json.dumps({key: wanted}), "lookback": "2d", "limit": "20"}
            hits |= {trace["traceID"] for trace in _jaeger_data(client, "/api/traces", query)}
    return hits


def _jaeger_spans(client: httpx.Client, trace_ids: Collection[str]) -> Iterator[Span]:
    for trace_id in trace_ids:
        for trace in _jaeger_data(client, f"/api/traces/{trace_id}", {}):
            yield from parse_jaeger(trace)


def _jaeger_data(client: httpx.Client, path: str, query: dict[str, str]) -> list[Any]:
    answer = client.get(path, params=query)
    if answer.status_code in (400, 404):  # Jaeger's ways of saying that there is no such trace
        return []
    answer.raise_for_status()
    data: list[Any] = answer.json().get("data") or []
    return data


def _from_jaeger(raw: dict[str, Any], service: str) -> Span:
    tags = {tag["key"]: tag["value"] for tag in raw.get("tags", ())}
    references = raw.get("references", ())
    parents = [
        ref["spanID"] for ref in references if ref["refType"] == "CHILD_OF" and ref["traceID"] == raw["traceID"]
    ]
    start_ns = raw["startTime"] * 1_000
    failed = tags.get("error") in (True, "true") or tags.get("otel.status_code") == "ERROR"
    return Span(
        trace_id=raw["traceID"],
        span_id=raw["spanID"],
        parent_id=parents[0] if parents else None,
        service=service,
        name=raw["operationName"],
        kind=str(tags.get("span.kind", "internal")),
        start_ns=start_ns,
        end_ns=start_ns + raw["duration"] * 1_000,
        error=str(tags.get("otel.status_description") or "error") if failed else None,
        links=tuple((ref["traceID"], ref["spanID"]) for ref in references if ref["refType"] != "CHILD_OF"),
        values=frozenset(str(value) for value in tags.values()),
    )
