"""Spans go to a collector in time or not at all: no answer of its own holds up or fills the process."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from shared.settings import Settings
from shared.telemetry import Telemetry
from shared.telemetry.collector import span_exporter
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


async def test_a_process_ends_though_its_collector_does_not_answer() -> None:
    async with server_that(b"", b"", 0.05) as collector:
        telemetry = Telemetry(
            Settings(
                broker="rabbit", http_port=1, postgres_dsn="postgresql://-", redis_url="redis://-", rabbit_url="amqp://-",
                otlp_endpoint=collector.url,
            ),
            "tester",
        )  # fmt: skip
        telemetry._provider.tracer.start_span("something").end()
        await asyncio.wait_for(asyncio.to_thread(telemetry.shutdown), 30)
        assert collector.asked
