"""Spans go to a collector in time or not at all: no answer of its own holds up or fills the process."""

from __future__ import annotations

import asyncio
import gzip
import re
from contextlib import suppress

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from shared.settings import Settings
from shared.telemetry import Telemetry
from shared.telemetry.tracing.collector import span_exporter
from tests.integration.misbehaving import HEAD, server_that
from tests.integration.world import eventually

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    ("answers", "again", "interval_s", "result"),
    [
        pytest.param(
            HEAD + b"content-length: 2\r\n\r\n{}", b"", 0.05, SpanExportResult.SUCCESS, id="as it should"
        ),
        pytest.param(b"HTTP/1.", b"1", 0.05, SpanExportResult.FAILURE, id="its status a byte at a time"),
        pytest.param(HEAD, b"x", 0.05, SpanExportResult.SUCCESS, id="its head a byte at a time"),
        pytest.param(CONTINUE, CONTINUE, 0.05, SpanExportResult.FAILURE, id="go on, for ever"),
        pytest.param(b"", b"220 this is no HTTP\r\n", 0.05, SpanExportResult.FAILURE, id="another protocol"),
        pytest.param(HEAD + b"\r\n", b"\0" * 65_536, 0, SpanExportResult.SUCCESS, id="a body without end"),
        pytest.param(HEAD + b"\r\n", b"x", 0.05, SpanExportResult.SUCCESS, id="its body a byte at a time"),
    ],
)
async def test_however_a_collector_answers_an_export_ends_and_hangs_up(
    answers: bytes, again: bytes, interval_s: float, result: SpanExportResult
) -> None:
    async with server_that(answers, again, interval_s) as collector:
        exporter = span_exporter(collector.url, 0.5)
        spans = TracerProvider().get_tracer("test")
        with spans.start_as_current_span("something") as span:
            pass
        assert await asyncio.wait_for(asyncio.to_thread(exporter.export, [span]), 30) is result  # type: ignore[list-item]

        async def left() -> bool:
            return collector.left == len(collector.asked) > 0

        await eventually(left, "it hung up")


def telemetry_to(url: str) -> Telemetry:
    settings = Settings(
        broker="rabbit", http_port=1, postgres_dsn="postgresql://-", redis_url="redis://-", rabbit_url="amqp://-",
        otlp_endpoint=url,
    )  # fmt: skip
    return Telemetry(settings, "tester")


async def test_a_collector_gets_every_span_as_the_variables_of_the_environment_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The SDK's own, one of an event, and one of an event that has more than most."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=tandem")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip")
    asked: list[tuple[bytes, bytes]] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        [length] = re.findall(rb"content-length: (\d+)", head)
        asked.append((head, await reader.readexactly(int(length))))
        writer.write(HEAD + b"content-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(collect, "127.0.0.1") as server:
        telemetry = telemetry_to(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with telemetry._provider.tracer.start_as_current_span("request"):
            for subject in ("a", "b"):
                with suppress(LookupError), telemetry.spans.create("order", "order.placed", subject):
                    if subject == "b":
                        raise LookupError
        await asyncio.wait_for(asyncio.to_thread(telemetry.shutdown), 30)
    [(head, body)] = asked
    assert b"x-team: tandem" in head
    assert b"post /v1/traces" in head
    resources = ExportTraceServiceRequest.FromString(gzip.decompress(body)).resource_spans
    for one in resources:
        assert ("service.name", "tester") in [(row.key, row.value.string_value) for row in one.resource.attributes]
    spans = [span for one in resources for scope in one.scope_spans for span in scope.spans]
    [request] = [span for span in spans if span.name == "request"]
    created = [span for span in spans if span.name == "create order.events"]
    assert {span.parent_span_id for span in created} == {request.span_id}
    assert {span.trace_id for span in spans} == {request.trace_id}
    assert sorted((len(span.events), span.status.code) for span in created) == [(0, 0), (1, 2)]


async def test_a_process_ends_though_its_collector_does_not_answer() -> None:
    async with server_that(b"", b"", 0.05) as collector:
        telemetry = telemetry_to(collector.url)
        telemetry._provider.tracer.start_span("something").end()
        await asyncio.wait_for(asyncio.to_thread(telemetry.shutdown), 30)
        assert collector.asked
