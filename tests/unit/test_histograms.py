"""Our histograms hold what the SDK's would, and go where those go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from deploy.paths import REPOSITORY
from shared.telemetry.conventions import SCOPE
from shared.telemetry.histograms import Histograms
from shared.telemetry.http_requests import RequestMetrics

BOUNDS = (0.005, 0.01, 0.1, 1.0)
SPAN = SpanContext(7, 9, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
VALUES = st.sampled_from([0, 5, 10_000, 0.005, 0.1]) | st.integers(0, 10**9) | st.floats(0, 1e9)


def points(data: MetricsData | None) -> list[Any]:
    """All that data points say, but when; the sum comes last."""
    resources = [] if data is None else data.resource_metrics
    return sorted(
        (
            metric.name, metric.unit, metric.description, metric.data.aggregation_temporality,  # type: ignore[union-attr]
            sorted((point.attributes or {}).items()), point.count, point.bucket_counts,  # type: ignore[union-attr]
            point.explicit_bounds, point.min, point.max,  # type: ignore[union-attr]
            [(e.filtered_attributes, e.value, e.span_id, e.trace_id) for e in point.exemplars],
            point.sum,  # type: ignore[union-attr]
        )
        for resource in resources
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("tests.")
        for point in metric.data.data_points
    )  # fmt: skip


@example([[(0.005, "a", False)], [(0.1, "a", False), (4_194_304, "a", False)]])
@given(st.lists(st.lists(st.tuples(VALUES, st.sampled_from("ab"), st.booleans()), max_size=9), max_size=3))
def test_what_is_exported_is_what_the_sdk_exports(batches: list[list[tuple[float, str, bool]]]) -> None:
    their_reader, our_reader = InMemoryMetricReader(), InMemoryMetricReader()
    meter, histograms = MeterProvider([their_reader]).get_meter(SCOPE), Histograms()
    MeterProvider([our_reader]).get_meter(SCOPE).create_counter("something").add(1)
    with_histograms = histograms.exporter()
    said = [("tests.time", "s", "Of a test.", BOUNDS), ("tests.size", "By", "", None)]
    theirs = [meter.create_histogram(*that[:3], explicit_bucket_boundaries_advisory=that[3]) for that in said]
    mine = [histograms.create(*that) for that in said]
    ours = [{which: histogram.series({"in": which}) for which in "ab"} for histogram in mine]
    for batch in [*batches, []]:
        for value, which, is_sampled in batch:
            span = NonRecordingSpan(SPAN) if is_sampled else trace.INVALID_SPAN
            for instrument, series in zip(theirs, ours, strict=True):
                instrument.record(value, {"in": which}, trace.set_span_in_context(span))
                series[which].record(value, SPAN if is_sampled else None)
        collected = our_reader.get_metrics_data()
        assert collected is not None
        expected = points(their_reader.get_metrics_data())
        # Sums of floats depend on what is added first: the SDK adds up what came between two collections.
        assert points(with_histograms(collected)) == [
            (*rest, pytest.approx(total, rel=1e-12, abs=0)) for *rest, total in expected
        ]


def test_more_kinds_of_requests_than_are_told_apart_are_told_as_one() -> None:
    reader, histograms = InMemoryMetricReader(), Histograms()
    metrics = RequestMetrics(MeterProvider([reader]).get_meter(SCOPE), histograms)
    for status in range(1_010):
        metrics.active["GET", "http"] += 1
        metrics.series("GET", None, status, "http", "1.1")[0].record(1, None)
    collected = reader.get_metrics_data()
    assert collected is not None
    [duration] = [
        metric
        for resource in histograms.exporter()(collected).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "http.server.request.duration"
    ]
    counts = [(point.count, dict(point.attributes or {})) for point in duration.data.data_points]  # type: ignore[union-attr]
    assert len(counts) == 1_001
    assert counts[-1] == (10, {"otel.metric.overflow": True})


PROGRAM = """
import asyncio, sys
from pathlib import Path
import httpx
from fastapi import FastAPI
from shared.settings import Settings
from shared.telemetry import Telemetry, prometheus_page

telemetry = Telemetry(Settings(
    broker="rabbit", http_port=1, postgres_dsn="postgresql://nobody@127.0.0.1:1/x",
    redis_url="redis://127.0.0.1:1/0", rabbit_url="amqp://127.0.0.1:1", otlp_dir=Path(sys.argv[1]),
), "tester")
app = FastAPI()
app.add_api_route("/things/{thing_id}", lambda thing_id: thing_id, methods=["POST"])
telemetry.instrument_http(app)

async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.post("/things/7", json={})

asyncio.run(ask())
lines = prometheus_page()[0].decode().splitlines()
print("\\n".join(line for line in lines if "http_server_re" in line and "duration" not in line))
telemetry.shutdown()
"""


@pytest.mark.parametrize("preference", ["cumulative", "delta"])
def test_histograms_are_on_the_page_for_prometheus_and_in_the_files(tmp_path: Path, preference: str) -> None:
    pages: list[str] = []
    kinds: list[dict[str, Any]] = []
    for variables in ({}, {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": preference}):
        folder = tmp_path / str(len(pages))
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder)], cwd=REPOSITORY, env={**os.environ, **variables},
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        pages.append(done.stdout)
        kinds.append({metric["name"]: metric["histogram"] for metric in written(folder) if "histogram" in metric})
    assert 'http_route="/things/{thing_id}"' in pages[0]
    assert pages[0] == pages[1]
    assert set(kinds[0]) == {
        f"http.server.{what}" for what in ("request.duration", "request.body.size", "response.body.size")
    }
    for name, ours in kinds[0].items():
        theirs = kinds[1][name]
        assert (ours["aggregationTemporality"], theirs["aggregationTemporality"]) == (
            2,
            1 + (preference == "cumulative"),
        )
        [[mine], [other]] = [histogram["dataPoints"] for histogram in (ours, theirs)]
        assert mine.keys() == other.keys()
        assert len(mine["exemplars"]) == len(other["exemplars"]) == 1
        assert (mine["attributes"], mine["count"]) == (other["attributes"], other["count"])


def written(folder: Path) -> list[dict[str, Any]]:
    """The metrics of the last line."""
    [file] = folder.glob("metrics-*.jsonl")
    last = orjson.loads(file.read_bytes().splitlines()[-1])
    return [
        metric
        for resource in last["resourceMetrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    ]
