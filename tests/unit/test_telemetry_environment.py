"""Whatever OpenTelemetry's own variables say, a process starts, or one sentence says why it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.paths import REPOSITORY

PROGRAM = """
import sys
from pathlib import Path
from shared.settings import Settings
from shared.telemetry import Telemetry

settings = Settings(
    broker="rabbit", http_port=1, postgres_dsn="postgresql://nobody@127.0.0.1:1/x",
    redis_url="redis://127.0.0.1:1/0", rabbit_url="amqp://127.0.0.1:1",
    otlp_dir=Path(sys.argv[1]), otlp_endpoint="http://127.0.0.1:1", trace_ratio=0.0,
)
telemetry = Telemetry(settings, "tester")
with telemetry.spans.create("thing", "thing.happened", "s") as created:
    print(created.traceparent)
telemetry.shutdown()
"""


def run(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since the SDK reads most of its variables once."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=REPOSITORY, env={**os.environ, **variables},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_disabled_sdk_gives_an_event_no_traceparent(tmp_path: Path) -> None:
    done = run(PROGRAM, str(tmp_path), OTEL_SDK_DISABLED="true")
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_limits_of_the_environment_that_contradict_ours_are_not_asked(tmp_path: Path) -> None:
    done = run(
        PROGRAM,
        str(tmp_path),
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="100000",
        OTEL_BSP_MAX_QUEUE_SIZE="1",
        OTEL_BSP_SCHEDULE_DELAY="-1",
        OTEL_TRACES_SAMPLER="nonsense",
    )
    assert (done.returncode, done.stdout[:3]) == (0, "00-"), done.stderr


REFUSED = (
    "import sys; from services.user.app import SERVICE; from shared.process import run; sys.exit(run(SERVICE))"
)


@pytest.mark.parametrize("name", ["OTEL_SPAN_LINK_COUNT_LIMIT", "OTEL_METRICS_EXEMPLAR_FILTER"])
def test_a_variable_that_the_sdk_cannot_read_is_told_in_one_sentence(name: str) -> None:
    done = run(
        REFUSED,
        TANDEM_BROKER="rabbit",
        TANDEM_HTTP_PORT="1",
        TANDEM_POSTGRES_DSN="postgresql://nobody@127.0.0.1:1/x",
        TANDEM_REDIS_URL="redis://127.0.0.1:1/0",
        TANDEM_RABBIT_URL="amqp://127.0.0.1:1",
        **{name: "nonsense"},
    )
    assert done.returncode == 78, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "nonsense" in done.stderr
