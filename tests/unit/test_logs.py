"""Logs: one JSON object per line, whoever wrote it."""

from __future__ import annotations

import subprocess
import sys

import orjson

PROGRAM = """
import logging, sys, structlog
from shared.telemetry import logs
early = logging.getLogger("early")
early.addHandler(logging.StreamHandler(sys.stdout))
logs.configure("INFO", "order")
from opentelemetry.sdk.trace import TracerProvider
tracer = TracerProvider().get_tracer("test")
log = structlog.get_logger("ours")
with tracer.start_as_current_span("span"):
    log.info("connected", attempts=3, odd={1: b"x"})
    logging.getLogger("theirs").warning("failed %s times", 2, extra={"queue": "q"})
early.error("was here before")
log.debug("not told")
log.info("surrogate \\ud800")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broken")
"""


def test_every_line_is_json_with_level_service_time_and_trace() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    lines = [orjson.loads(line) for line in run.stdout.splitlines()]
    assert [line["event"].split()[0] for line in lines] == ["connected", "failed", "was", "'surrogate", "broken"]
    for line in lines[:3]:
        assert (line["service"], line["level"] in {"info", "warning", "error"}) == ("order", True)
        assert line["timestamp"].endswith("Z")
    assert (lines[0]["attempts"], lines[0]["logger"]) == (3, "ours")
    assert (lines[1]["event"], lines[1]["logger"], lines[1]["queue"]) == ("failed 2 times", "theirs", "q")
    assert lines[0]["trace_id"] == lines[1]["trace_id"]
    assert len(lines[0]["trace_id"]) == 32
    assert "trace_id" not in lines[2]
    assert "ZeroDivisionError" in lines[4]["exception"]
    assert run.stderr == b""
