"""What a process imports is what it needs: imports are most of what starting a process costs."""

from __future__ import annotations

import gc
import subprocess
import sys
from importlib import reload
from pathlib import Path

import pytest

import services
from tests.architecture.source import REPOSITORY

PROGRAM = """
import sys
from services.notification.app import SERVICE
from shared.process.parts import build_parts
from shared.process.process import Process
from shared.process.server import application_of
from shared.settings import Settings

settings = Settings.from_environment()
parts = build_parts(SERVICE.name, settings)
application_of(Process(SERVICE, parts))
if "api" in settings.roles:
    parts.broker.asyncapi("Tandem", "0", SERVICE.operations(SERVICE.subscribers))
print(*sys.modules, sep="\\n")
"""
CLIENTS = {
    "rabbit": {"aio_pika", "aiormq", "pamqp", "faststream.rabbit", "shared.broker.rabbit.adapter"},
    "kafka": {"aiokafka", "faststream.kafka", "shared.broker.kafka.adapter"},
}
HTTP = {"fastapi", "services.notification.http"}
ASYNCAPI = {"faststream.specification.asyncapi.v2_6_0", "faststream.specification.asyncapi.v3_0_0"}
"""FastStream's generator; its package is imported by every `import faststream`."""
NEVER_IN_THIS_ONE = {
    *("alembic", "httpx", "jinja2", "obstore", "pycountry", "pydantic_extra_types", "requests"),
    "opentelemetry.instrumentation",
}
"""It sends no mail, migrates nothing, checks no currency, archives nothing, exports no spans, and is told to do
nothing that only OpenTelemetry's own instrumentation can."""


BEFORE_ANYTHING = """
import gc
import sys
import uvicorn

collections = []
gc.callbacks.append(lambda phase, _: collections.append(phase) if "services" in sys.modules else None)
uvicorn.Server.run = lambda _: print(collections, gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count() > 0)
"""
"""In place of serving: how often garbage was looked for since the service was imported, and how it is now."""


def environment_of(broker: str, role: str) -> dict[str, str]:
    """Enough to begin with; no server is asked."""
    return {
        "PATH": "/usr/bin:/bin",
        "TANDEM_BROKER": broker,
        "TANDEM_ROLES": role,
        "TANDEM_HTTP_PORT": "1",
        "TANDEM_POSTGRES_DSN": "postgresql://nobody@127.0.0.1:1/notification",
        "TANDEM_REDIS_URL": "redis://127.0.0.1:1/0",
        "TANDEM_RABBIT_URL": "amqp://127.0.0.1:1",
        "TANDEM_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    }


def imported(broker: str, role: str) -> set[str]:
    """The modules that a process of the notification service has when it begins to serve; with the role `api`,
    when it has been asked for its AsyncAPI document, too."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY,
        env=environment_of(broker, role),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return set(done.stdout.split())


@pytest.mark.parametrize(("broker", "other"), [("rabbit", "kafka"), ("kafka", "rabbit")])
def test_a_consumer_imports_no_http_framework_no_other_client_and_no_document_generator(
    broker: str, other: str
) -> None:
    modules = imported(broker, "consumer")
    assert modules & (HTTP | ASYNCAPI | CLIENTS[other] | NEVER_IN_THIS_ONE) == set()
    assert modules >= CLIENTS[broker]


def test_the_names_that_a_consumer_must_not_import_are_the_right_ones() -> None:
    modules = imported("rabbit", "api")
    assert modules >= HTTP
    assert "opentelemetry.instrumentation" not in modules
    assert modules & ASYNCAPI


def test_a_service_looks_for_garbage_only_when_all_is_imported_and_seldom_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BEFORE_ANYTHING)
    done = subprocess.run(
        [sys.executable, "-m", "services.order.app"],
        cwd=REPOSITORY,
        env=environment_of("rabbit", "relay") | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "['start', 'stop'] True 50000 True\n", done.stderr[-2_000:]


def test_whoever_else_imports_a_service_goes_on_collecting_garbage() -> None:
    gc.disable()
    try:
        reload(services)
        assert gc.isenabled()
    finally:
        gc.enable()
