"""Sends spans to a collector over OTLP/HTTP, in time: however slow, long or wrong it answers, an export ends.

The exporter's own client bounds each wait for a byte, follows "go on" for ever, and reads the whole of an answer.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from shared.telemetry.tracing.span_batches import Ended
from shared.telemetry.tracing.span_messages import request_of


def span_exporter(endpoint: str, timeout_s: float) -> OTLPSpanExporter:
    """What exports spans to `endpoint`, an export in `timeout_s` and little more."""
    return _Exporter(
        endpoint=f"{endpoint.rstrip('/')}/v1/traces",
        timeout=timeout_s,
        session=_Session(),
    )


class _Exporter(OTLPSpanExporter):
    """The SDK's, but for what it sends: it would encode each span by itself (`span_messages`)."""

    def export(self, spans: Sequence[Ended]) -> SpanExportResult:
        if self._shutdown:
            return SpanExportResult.FAILURE
        sent = self._client.export(request_of(spans))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


class _Session(requests.Session):
    """Reads no more of an answer than its head, which has to be there in time."""

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().request(*args, **{**kwargs, "stream": True})
        response.close()
        return response


@contextlib.contextmanager
def _cut_off_after(timeout_s: float | None, connection: socket.socket | None) -> Iterator[None]:
    """End the connection, in whatever it waits, when the block takes longer than that."""

    def cut_off() -> None:
        if connection is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s or 0.0, cut_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Connection(HTTPConnection):
    def getresponse(self) -> Any:
        with _cut_off_after(self.timeout, self.sock):
            return super().getresponse()


class _SecureConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        with _cut_off_after(self.timeout, self.sock):
            return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
