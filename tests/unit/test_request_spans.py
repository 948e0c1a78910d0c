"""Requests have the spans and the metrics that OpenTelemetry's own instrumentation gives them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import Body, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from deploy.paths import REPOSITORY
from shared.telemetry.conventions import SCOPE
from shared.telemetry.histograms import Histograms
from shared.telemetry.http_requests import RequestMetrics, RequestSpans
from shared.telemetry.tracing.recorder import Recorder
from shared.telemetry.tracing.span_batches import Ended, readable

SAMPLED, UNSAMPLED = (f"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0{flag}".encode() for flag in "10")
HOST = (b"host", b"127.0.0.1:8001")
JSON = [HOST, (b"content-type", b"application/json")]

REQUESTS: dict[str, dict[str, Any]] = {
    "found": {"path": "/orders/7", "query_string": b"a=1&b=%20"},
    "a user agent": {"path": "/orders/7", "headers": [HOST, (b"user-agent", b"curl/8")]},
    "head": {"path": "/orders/7", "method": "HEAD"},
    "a body": {
        "path": "/orders", "method": "POST", "headers": [*JSON, (b"content-length", b"7")], "body": b'{"a":1}',
    },
    "invalid": {"path": "/orders", "method": "POST", "headers": JSON, "body": b"{"},
    "a parent": {"path": "/orders/7", "headers": [HOST, (b"traceparent", SAMPLED), (b"tracestate", b"v=1")]},
    "an unsampled parent": {"path": "/orders/7", "headers": [HOST, (b"traceparent", UNSAMPLED)]},
    "no route": {"path": "/nothing"},
    "another method": {"path": "/orders/7", "method": "DELETE"},
    "an unknown method": {"path": "/orders/7", "method": "BREW"},
    "a fault": {"path": "/fault"},
    "unavailable": {"path": "/unavailable"},
    "a stream": {"path": "/stream"},
    "a stream that breaks": {"path": "/broken"},
    "a probe": {"path": "/health/live"},
    "nobody known": {"path": "/orders/7", "client": None, "server": ("::1", 80), "http_version": "2"},
}  # fmt: skip


def an_app() -> FastAPI:
    app = FastAPI()

    @app.get("/orders/{order_id}")
    async def get(order_id: str) -> dict[str, str | None]:
        return {"id": order_id, "in": f"{trace.get_current_span().get_span_context().trace_id:032x}"}

    @app.post("/orders")
    async def post(order: dict[str, int] = Body()) -> dict[str, int]:  # noqa: B008 - FastAPI's way
        return order

    @app.get("/fault")
    async def fault() -> None:
        raise LookupError("a fault")

    @app.get("/unavailable")
    async def unavailable() -> None:
        raise HTTPException(503)

    async def parts(*, breaking: bool) -> Any:
        yield b"one"
        if breaking:
            raise LookupError("broken")
        yield b"two"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(parts(breaking=False))

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        return StreamingResponse(parts(breaking=True))

    @app.get("/health/live")
    async def live() -> None:
        return None

    return app


async def ask(app: Any, told: dict[str, Any]) -> list[Any]:
    """What it answers; the error that it raised is the last."""
    answers: list[Any] = []
    bodies: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": told.get("body", b""), "more_body": False}]
    )

    async def receive() -> dict[str, Any]:
        if (body := next(bodies, None)) is None:
            await asyncio.Event().wait()  # it does not hang up
            raise AssertionError
        return body

    async def send(message: dict[str, Any]) -> None:
        answers.append((message["type"], message.get("status"), message.get("body")))

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "query_string": b"",
        "root_path": "", "scheme": "http", "client": ("127.0.0.1", 4_000), "server": ("127.0.0.1", 8_001),
        "headers": [HOST], "raw_path": told["path"].encode(),
        **{name: value for name, value in told.items() if name != "body"},
    }  # fmt: skip
    try:
        async with asyncio.timeout(10):
            await app(scope, receive, send)
    except LookupError as error:
        answers.append(str(error))
    return answers


def theirs() -> tuple[FastAPI, Callable[[], list[ReadableSpan]], InMemoryMetricReader]:
    kept, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(kept))
    app = an_app()
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=tracers,
        meter_provider=MeterProvider([reader]),
        excluded_urls="health/.*,metrics",
        exclude_spans=["send", "receive"],
    )
    return app, lambda: list(kept.get_finished_spans()), reader


class OurReader(InMemoryMetricReader):
    """Collects as an exporter does."""

    def __init__(self, histograms: Histograms | None) -> None:
        super().__init__()
        self._with_histograms = histograms.exporter() if histograms is not None else None

    def get_metrics_data(self) -> MetricsData | None:
        data: MetricsData | None = super().get_metrics_data()
        return data if data is None or self._with_histograms is None else self._with_histograms(data)


def ours(
    *, histograms: Histograms | None = None
) -> tuple[RequestSpans, Callable[[], list[ReadableSpan]], InMemoryMetricReader]:
    kept, reader = list[Ended](), OurReader(histograms)
    recorder = Recorder(TraceIdRatioBased(1.0), [kept.append])
    metrics = RequestMetrics(MeterProvider([reader]).get_meter(SCOPE), histograms)
    return RequestSpans(an_app(), recorder, metrics), lambda: readable(kept), reader


def told(spans: list[ReadableSpan]) -> list[Any]:
    """Their `server.address` has the port with it, which the conventions do not say; an error that breaks an
    answer they tell twice."""
    return [
        (
            span.name, span.kind, span.parent, span.context.trace_state,
            span.status.status_code, span.status.description,
            {key: value for key, value in (span.attributes or {}).items() if key != "server.address"},
            {(event.name, (event.attributes or {}).get("exception.message")) for event in span.events},
        )
        for span in spans
        if span.context
    ]  # fmt: skip


def measured(reader: InMemoryMetricReader) -> dict[str, Any]:
    """By name and attributes, how often and, but of times, how much."""
    data = reader.get_metrics_data()
    points: dict[str, Any] = {}
    for metric in (m for r in (data.resource_metrics if data else []) for s in r.scope_metrics for m in s.metrics):
        for point in metric.data.data_points:
            key = f"{metric.name} {metric.unit} {sorted(point.attributes.items())}"  # type: ignore[union-attr]
            count, value = getattr(point, "count", None), getattr(point, "sum", getattr(point, "value", None))
            points[key] = (count, None if metric.unit == "s" else value, getattr(point, "explicit_bounds", None))
    return points


@pytest.fixture
def _new_conventions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")


@pytest.mark.usefixtures("_new_conventions")
@pytest.mark.parametrize("instruments", ["ours", "the SDK's"])
@pytest.mark.parametrize("kind", REQUESTS)
async def test_a_request_has_the_span_and_the_metrics_that_it_had_by_the_librarys_instrumentation(
    kind: str, instruments: str
) -> None:
    their_app, their_spans, their_reader = theirs()
    our_app, our_spans, our_reader = ours(histograms=Histograms() if instruments == "ours" else None)
    expected = await ask(their_app, REQUESTS[kind])
    answers = await ask(our_app, REQUESTS[kind])
    assert len(answers) == len(expected)
    assert [answer[1:2] for answer in answers] == [answer[1:2] for answer in expected]
    assert told(our_spans()) == told(their_spans())
    assert measured(our_reader) == measured(their_reader)


async def test_the_span_of_a_request_is_the_running_one_and_none_is_afterwards() -> None:
    app, spans, _ = ours()
    [_, body] = await ask(app, REQUESTS["found"])
    [span] = spans()
    assert span.context is not None
    assert f"{span.context.trace_id:032x}".encode() in body[2]
    assert not trace.get_current_span().get_span_context().is_valid
    assert (span.attributes or {})["server.address"] == "127.0.0.1"


async def test_what_a_handler_adds_to_the_span_of_its_request_is_kept() -> None:
    app, spans, _ = ours()

    async def with_more(scope: Any, receive: Any, send: Any) -> None:
        trace.get_current_span().set_attribute("tandem.order.id", "7")
        await an_app()(scope, receive, send)

    app._app = with_more
    await ask(app, REQUESTS["found"])
    [span] = spans()
    assert span.name == "GET /orders/{order_id}"
    assert {**(span.attributes or {})}.items() >= {
        "tandem.order.id": "7",
        "http.response.status_code": 200,
    }.items()


PROGRAM = """
import sys
from fastapi import FastAPI
from shared.settings import Settings
from shared.telemetry import Telemetry
settings = Settings(
    broker="rabbit", http_port=1, postgres_dsn="postgresql://nobody@127.0.0.1:1/x",
    redis_url="redis://127.0.0.1:1/0", rabbit_url="amqp://127.0.0.1:1",
)
app = FastAPI()
Telemetry(settings, "tester").instrument_http(app)
print(type(app.build_middleware_stack()).__name__, "opentelemetry.instrumentation.fastapi" in sys.modules)
"""


@pytest.mark.parametrize("name", ["", "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST"])
def test_who_asks_the_librarys_instrumentation_for_more_by_its_variables_gets_it(name: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, env={**environment, **({name: "x-team"} if name else {})},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.split()[1] == str(bool(name))
